"""The process groups of the trainer ranks, in torch.distributed and in Megatron-core."""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from megatron.core import parallel_state, tensor_parallel

# Feeds dropout, which no supported model uses, and nothing else.
SEED = 1


@dataclass(frozen=True)
class Ranks:
    """This rank's place: neighbours in ``tensor`` share one model, those in ``data`` share its shards."""

    tensor: dist.ProcessGroup
    data: dist.ProcessGroup
    tensor_rank: int
    tensor_size: int
    data_rank: int
    data_size: int


def start(backend: str, rank: int, world_size: int, master: str, tensor_parallel_size: int) -> Ranks:
    """Join the ``world_size`` ranks that meet at ``master`` ("host:port"). A collective."""
    dist.init_process_group(backend, init_method=f"tcp://{master}", rank=rank, world_size=world_size)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=tensor_parallel_size, create_gloo_process_groups=False
    )
    tensor_parallel.model_parallel_cuda_manual_seed(SEED)
    tensor = parallel_state.get_tensor_model_parallel_group()
    data = parallel_state.get_data_parallel_group()
    return Ranks(tensor, data, dist.get_rank(tensor), tensor.size(), dist.get_rank(data), data.size())


def stop() -> None:
    """Leave all groups."""
    parallel_state.destroy_model_parallel()
    dist.destroy_process_group()
