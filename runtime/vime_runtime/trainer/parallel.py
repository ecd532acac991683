"""The process groups of the trainer ranks, in torch.distributed and in Megatron-core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel
from torch._C._distributed_c10d import Store

from vime_runtime.safe_unpickling import restrict_process_groups

# For dropout only, which no supported model has.
SEED = 1


@dataclass(frozen=True)
class ParallelGroups:
    """The groups that this rank belongs to.

    Attributes:
        tensor: ranks that share one model.
        data: ranks that have the same shard of a model.
        expert: ranks that share the experts.
        replicas: with more expert-parallel than tensor-parallel ranks, one rank of each of the replicas that
            share the experts; otherwise None.
        expert_data: ranks that have the same experts.
    """

    tensor: dist.ProcessGroup
    data: dist.ProcessGroup
    expert: dist.ProcessGroup
    replicas: dist.ProcessGroup | None
    expert_data: dist.ProcessGroup

    def connect(self, device: torch.device) -> None:
        """Create the communicators of all groups that training uses. A collective.

        A group would create its own on first use, the one for gradients when torch's allocator has most of
        the device's memory. HCCL allocates buffers outside of it and cannot make it return some.
        """
        groups = (dist.group.WORLD, self.tensor, self.data, self.expert, self.expert_data, self.replicas)
        for group in dict.fromkeys(group for group in groups if group is not None):
            dist.all_reduce(torch.zeros(1, device=device), group=group)

    @property
    def model(self) -> dist.ProcessGroup:
        """The ranks that together have one whole model."""
        return self.expert if self.expert.size() > self.tensor.size() else self.tensor


def start(
    backend: str,
    rank: int,
    world_size: int,
    store: Store,
    tensor_parallel_size: int,
    expert_parallel_size: int = 1,
    world_options: Any = None,
) -> ParallelGroups:
    """Connect ``world_size`` ranks through a store and create their groups. A collective.

    Args:
        expert_parallel_size: 1 or a multiple of ``tensor_parallel_size``.
        world_options: ``pg_options`` of the group of all ranks, which exchanges only a few bytes.
    """
    restrict_process_groups()
    dist.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        pg_options=world_options,
    )
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=tensor_parallel_size,
        expert_model_parallel_size=expert_parallel_size,
        # Experts are whole if they are distributed over ranks, and split as a dense MLP if they are not.
        expert_tensor_parallel_size=tensor_parallel_size if expert_parallel_size == 1 else 1,
        create_gloo_process_groups=False,
    )
    tensor_parallel.model_parallel_cuda_manual_seed(SEED)
    replicas = None
    if expert_parallel_size > tensor_parallel_size:
        replicas, _ = dist.new_subgroups_by_enumeration(
            [
                list(range(first + tensor_rank, first + expert_parallel_size, tensor_parallel_size))
                for first in range(0, world_size, expert_parallel_size)
                for tensor_rank in range(tensor_parallel_size)
            ]
        )
    distinct: dict[tuple[int, ...], dist.ProcessGroup] = {}
    created = {name: g for name, g in vars(parallel_state).items() if isinstance(g, dist.ProcessGroup)}
    for name, group in created.items():
        vars(parallel_state)[name] = _shared(group, distinct)
    for group in set(created.values()) - {*distinct.values(), dist.group.WORLD}:
        dist.destroy_process_group(group)  # gloo listens for each group that exists
    parallel_state._global_process_group_list = list(distinct.values())
    # All ranks; the norm of the gradient of a distributed optimizer is added over them.
    parallel_state._INTRA_DISTRIBUTED_OPTIMIZER_INSTANCE_GROUP = dist.group.WORLD
    return ParallelGroups(
        parallel_state.get_tensor_model_parallel_group(),
        parallel_state.get_data_parallel_group(),
        parallel_state.get_expert_model_parallel_group(),
        None if replicas is None else _shared(replicas, distinct),
        parallel_state.get_expert_data_parallel_group(),
    )


def _shared(
    group: dist.ProcessGroup, distinct: dict[tuple[int, ...], dist.ProcessGroup]
) -> dist.ProcessGroup:
    """Return the first group that has the ranks of ``group``.

    Megatron creates several groups of the same ranks, such as those of gradients and of the norm of the
    gradient. On an NPU each group that is used takes another 400 MB for buffers by default.
    """
    return distinct.setdefault(tuple(dist.get_process_group_ranks(group)), group)


def stop() -> None:
    """Destroy all groups."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()
