"""HCCL for device tensors: gloo on the same memory."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from torch_npu import _books, _npu, _unknown
from torch_npu._device import on_host


def register() -> None:
    """Register the backend with torch.distributed, as torch_npu does."""
    dist.Backend.register_backend("hccl", _create, devices=["npu"])
    dist.is_hccl_available = lambda: True
    compiled = sys.modules["torch_npu._C._distributed_c10d"] = _unknown.Module(
        "torch_npu._C._distributed_c10d"
    )
    compiled.ProcessGroupHCCL = ProcessGroupHCCL
    sys.modules["torch_npu._C"] = _unknown.Module("torch_npu._C")


def _create(store: dist.Store, rank: int, size: int, timeout: timedelta) -> dist.ProcessGroup:
    _books.record("hccl_init", chip=_npu.chip(), rank=rank, size=size)
    return Hccl(dist.ProcessGroupGloo(store, rank, size, timeout))


def _lower(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.device.type != "npu":
            raise RuntimeError(f"HCCL: a tensor on {value.device} cannot be communicated")
        return on_host(value)
    return [_lower(one) for one in value] if isinstance(value, list | tuple) else value


def _through_gloo(name: str) -> Any:
    def collective(self: Hccl, *args: Any) -> Any:
        _books.record("hccl", op=name, chip=_npu.chip())
        return getattr(self.gloo, name)(*map(_lower, args))

    return collective


class ProcessGroupHCCL:
    """Where torch_npu has the options of a process group."""

    class Options:
        """Accepted, without effect."""

        def __init__(self, **settings: Any) -> None:
            self.hccl_config: dict[str, Any] = {}


class Hccl(dist.ProcessGroup):
    """A process group that runs gloo's collectives on the device memory.

    torch 2.13 calls those on one tensor by other names than before.
    """

    def __init__(self, gloo: dist.ProcessGroupGloo) -> None:
        super().__init__(gloo.rank(), gloo.size())
        self.gloo = gloo
        # It has the name of the group and the device that the group is for.
        self._register_backend(torch.device("npu"), dist.ProcessGroup.BackendType.CUSTOM, gloo)

    def barrier(self, *options: Any, **named: Any) -> Any:
        return self.gloo.barrier()

    broadcast = _through_gloo("broadcast")
    allreduce = _through_gloo("allreduce")
    allreduce_coalesced = _through_gloo("allreduce_coalesced")
    allgather = _through_gloo("allgather")
    _allgather_base = all_gather_single = _through_gloo("_allgather_base")
    reduce_scatter = _through_gloo("reduce_scatter")
    _reduce_scatter_base = reduce_scatter_single = _through_gloo("_reduce_scatter_base")
    alltoall = _through_gloo("alltoall")
    alltoall_base = all_to_all_single = _through_gloo("alltoall_base")
    send = _through_gloo("send")
    recv = _through_gloo("recv")
