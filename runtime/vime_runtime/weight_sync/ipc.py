"""Buffers that one process fills and other processes map, in CPU memory and in device memory.

A CPU buffer is an anonymous memory file. A reader opens it as ``/proc/<pid>/fd/<n>`` of its owner, so it has
no name anywhere and is freed with the last process that maps it. A device buffer is mapped by a process on
the same device through an IPC handle, which torch makes and opens (``torch.multiprocessing.reductions``;
torch_npu extends it to NPUs).

Handles are bytes. They name functions and types of torch and torch_npu, and pass through the driver, which
can do without both. Only the worker that maps a buffer unpickles its handle.
"""

from __future__ import annotations

import mmap
import os
import pickle  # nosec B403 # for handles, see map_buffer
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import reduce_tensor

from vime_runtime.weight_sync.device_identity import device_uuid, machine_id

# Buffers of one owner that are used in turn: one is filled while the other is read.
BUFFERS = 2
# The position of the device's index among the arguments that reduce_tensor returns for a device tensor.
DEVICE_ARGUMENT = 6


@dataclass(frozen=True)
class CpuHandle:
    """The address of a CPU buffer for readers; ``inode`` and ``nbytes`` identify the right file."""

    pid: int
    file: int
    inode: int
    nbytes: int

    def map(self, device: torch.device) -> torch.Tensor:
        """Map the buffer, uint8 [bytes].

        Raises:
            RuntimeError: the owner of the buffer has exited, or the handle leads to another file.
        """
        path = f"/proc/{self.pid}/fd/{self.file}"
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as e:
            raise RuntimeError(f"cannot open the weight buffer {path} of the trainer: {e.strerror}") from e
        try:
            found = os.fstat(file)
            if found.st_ino != self.inode or found.st_size < self.nbytes:
                raise RuntimeError(
                    f"{path} is not the weight buffer: its process id or file number was reused"
                )
            return torch.frombuffer(mmap.mmap(file, self.nbytes), dtype=torch.uint8)
        finally:
            os.close(file)


@dataclass(frozen=True)
class DeviceHandle:
    """The result of ``reduce_tensor`` for a device buffer."""

    rebuild: Callable[..., torch.Tensor]
    arguments: tuple[Any, ...]

    def map(self, device: torch.device) -> torch.Tensor:
        """Map the buffer on ``device``, uint8 [bytes]; it may have another index in the owner's process.

        Raises:
            RuntimeError: the owner of the buffer has exited, or the device cannot map it.
        """
        index = device.index
        if index is None:
            index = torch.get_device_module(device).current_device()
        before, after = self.arguments[:DEVICE_ARGUMENT], self.arguments[DEVICE_ARGUMENT + 1 :]
        try:
            return self.rebuild(*before, index, *after)
        except RuntimeError as e:
            raise RuntimeError(
                f"cannot map the weight buffer of the trainer on {device} (the trainer may have exited): {e}"
            ) from e


class CpuBuffer:
    """A buffer in CPU memory, in the process that owns it.

    With ``group`` all of its ranks, on one machine, fill the buffer together and the first of them owns it.
    Readers must get its handle only after every rank has written.
    """

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        owner = group is None or group.rank() == 0
        self._file = os.memfd_create("vime-bucket", os.MFD_CLOEXEC) if owner else None
        self.data = torch.empty(0, dtype=torch.uint8)

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, uint8 [bytes], at least ``nbytes`` long. Its contents are lost when it grows.

        A collective over the group, with the same ``nbytes``.
        """
        if nbytes <= self.data.numel():
            return
        if self._file is not None:
            os.ftruncate(self._file, nbytes)
            self.data = torch.frombuffer(mmap.mmap(self._file, nbytes), dtype=torch.uint8)
        if self._group is not None:
            owned = astuple(self._handle()) if self._file is not None else (0,) * len(fields(CpuHandle))
            shared = torch.tensor(owned, dtype=torch.int64)
            dist.broadcast(shared, group=self._group, group_src=0)
            if self._file is None:
                self.data = CpuHandle(*shared.tolist()).map(self.data.device)

    def handles(self) -> dict[str, bytes]:
        """Return what a reader needs to map the buffer as it is now; only the owner has a handle."""
        if self._file is None:
            return {}
        return {machine_id(): pickle.dumps(self._handle())}

    def _handle(self) -> CpuHandle:
        assert self._file is not None  # only the owner has a handle
        return CpuHandle(os.getpid(), self._file, os.fstat(self._file).st_ino, self.data.numel())


class DeviceBuffer:
    """A buffer in device memory, in the process that owns it. It stays allocated between buckets.

    An IPC handle exports the whole segment of the caching allocator that a tensor is in, however large, and
    the segment cannot be freed while a reader has it mapped (``shareIpcHandle`` in torch_npu's
    NPUCachingAllocator.cpp, 2.10.0 to 2.13.0). ``empty_cache`` does not help if another tensor is in the same
    segment. So a buffer is allocated in a new memory pool, which has no segment yet.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.data = torch.empty(0, dtype=torch.uint8, device=device)
        self._handles: dict[str, bytes] = {}

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, uint8 [bytes], at least ``nbytes`` long. Its contents are lost when it grows."""
        if nbytes <= self.data.numel():
            return
        self.data, self._handles = self.data.new_empty(0), {}
        module = torch.get_device_module(self._device)
        with module.use_mem_pool(module.MemPool(), self._device):
            self.data = torch.empty(nbytes, dtype=torch.uint8, device=self._device)

    def handles(self) -> dict[str, bytes]:
        """Return what a reader on this device needs, after everything written before is in the buffer.

        The reader is another process, whose streams can only be ordered after this one's by waiting here.
        """
        torch.get_device_module(self._device).current_stream().synchronize()
        if not self._handles:  # memory that was exported is freed only after a reader has mapped it
            handle = DeviceHandle(*reduce_tensor(self.data))
            self._handles = {device_uuid(self._device): pickle.dumps(handle)}
        return self._handles


class BufferReader:
    """Map buffers of another process for a reader on ``device``, each once; keep the last two mapped."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._mapped: list[tuple[bytes, torch.Tensor]] = []

    def open(self, handle: bytes) -> torch.Tensor:
        """Return the buffer, uint8 [bytes]. Raises RuntimeError if it cannot be mapped."""
        for known, data in self._mapped:
            if known == handle:
                return data
        self._mapped = self._mapped[1 - BUFFERS :]
        data = map_buffer(handle, self._device)
        self._mapped.append((handle, data))
        return data


def map_buffer(handle: bytes, device: torch.device) -> torch.Tensor:
    """Map the buffer of a handle, uint8 [bytes]. Raises RuntimeError if it cannot be mapped."""
    # A trainer of the same run made it, and the driver passed it on.
    unpickled: CpuHandle | DeviceHandle = pickle.loads(handle)  # nosec B301
    return unpickled.map(device)
