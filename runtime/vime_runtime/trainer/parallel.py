"""The process groups of the trainer ranks, in torch.distributed and in Megatron-core."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

# Feeds dropout, which no supported model uses, and nothing else.
SEED = 1


@dataclass(frozen=True)
class Ranks:
    """This rank's place: neighbours in ``tensor`` share one model, those in ``data`` share its shards.

    The ranks of ``expert`` share the experts. When they are more than the tensor-parallel ones, they are
    those of several replicas, and ``replicas`` has one rank of each; else it is None.
    """

    tensor: dist.ProcessGroup
    data: dist.ProcessGroup
    expert: dist.ProcessGroup
    replicas: dist.ProcessGroup | None
    tensor_rank: int
    tensor_size: int
    data_rank: int
    data_size: int
    expert_rank: int
    expert_size: int

    @property
    def model(self) -> dist.ProcessGroup:
        """The ranks that have a whole model among them."""
        return self.expert if self.expert_size > self.tensor_size else self.tensor


def start(
    backend: str,
    rank: int,
    world_size: int,
    master: str,
    tensor_parallel_size: int,
    expert_parallel_size: int = 1,
) -> Ranks:
    """Join the ``world_size`` ranks that meet at ``master`` ("host:port"). A collective.

    ``expert_parallel_size`` is 1 or a multiple of ``tensor_parallel_size``.
    """
    dist.init_process_group(backend, init_method=f"tcp://{master}", rank=rank, world_size=world_size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=tensor_parallel_size,
        expert_model_parallel_size=expert_parallel_size,
        # Experts that are divided among ranks are whole, others are split as the MLP of a dense layer is.
        expert_tensor_parallel_size=tensor_parallel_size if expert_parallel_size == 1 else 1,
        create_gloo_process_groups=False,
    )
    tensor_parallel.model_parallel_cuda_manual_seed(SEED)
    tensor = parallel_state.get_tensor_model_parallel_group()
    data = parallel_state.get_data_parallel_group()
    expert = parallel_state.get_expert_model_parallel_group()
    return Ranks(
        tensor,
        data,
        expert,
        _replicas(rank, world_size, tensor_parallel_size, expert_parallel_size),
        dist.get_rank(tensor),
        tensor.size(),
        dist.get_rank(data),
        data.size(),
        dist.get_rank(expert),
        expert.size(),
    )


def _replicas(rank: int, world_size: int, tensor: int, expert: int) -> dist.ProcessGroup | None:
    """Of each run of ``expert`` ranks those with the same place in their replica. A collective."""
    if expert <= tensor:
        return None
    own = None
    for first in range(0, world_size, expert):
        for place in range(tensor):
            ranks = list(range(first + place, first + expert, tensor))
            group = dist.new_group(ranks)
            own = group if rank in ranks else own
    return own


def stop() -> None:
    """Leave all groups."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()
