"""The process groups of the trainer ranks, in torch.distributed and in Megatron-core."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

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
    """

    tensor: dist.ProcessGroup
    data: dist.ProcessGroup
    expert: dist.ProcessGroup
    replicas: dist.ProcessGroup | None

    @property
    def model(self) -> dist.ProcessGroup:
        """The ranks that together have one whole model."""
        return self.expert if self.expert.size() > self.tensor.size() else self.tensor


def start(
    backend: str,
    rank: int,
    world_size: int,
    master: str,
    tensor_parallel_size: int,
    expert_parallel_size: int = 1,
) -> ParallelGroups:
    """Connect ``world_size`` ranks at ``master`` ("host:port") and create their groups. A collective.

    ``expert_parallel_size`` is 1 or a multiple of ``tensor_parallel_size``.
    """
    dist.init_process_group(backend, init_method=f"tcp://{master}", rank=rank, world_size=world_size)
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
    return ParallelGroups(
        parallel_state.get_tensor_model_parallel_group(),
        parallel_state.get_data_parallel_group(),
        parallel_state.get_expert_model_parallel_group(),
        replicas,
    )


def stop() -> None:
    """Destroy all groups."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()
