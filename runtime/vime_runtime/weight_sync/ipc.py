"""Buffers that one process fills and other processes map, in CPU memory and in device memory.

A CPU buffer is an anonymous memory file. A reader opens it as ``/proc/<pid>/fd/<n>`` of its owner, so it has
no name anywhere and is freed with the last process that maps it. A device buffer is mapped by a process on
the same device through an IPC handle, which torch makes and opens (``torch.multiprocessing.reductions``;
torch_npu extends it to NPUs).
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import reduce_tensor

from vime_runtime.weight_sync.device_identity import device_uuid, machine_id

# Buffers of one owner that are used in turn: one is filled while the other is read.
BUFFERS = 2
# The position of the device's index among the arguments that reduce_tensor returns for a device tensor.
DEVICE_ARGUMENT = 6

DeviceHandle = tuple[Callable[..., torch.Tensor], tuple[Any, ...]]


@dataclass(frozen=True)
class CpuHandle:
    """The address of a CPU buffer for readers; ``inode`` and ``nbytes`` identify the right file."""

    pid: int
    file: int
    inode: int
    nbytes: int


class CpuBuffer:
    """A buffer in CPU memory, in the process that owns it."""

    def __init__(self) -> None:
        self._file = os.memfd_create("vime-bucket", os.MFD_CLOEXEC)
        self.data = torch.empty(0, dtype=torch.uint8)

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, uint8 [bytes], at least ``nbytes`` long. Its contents are lost when it grows."""
        if nbytes > self.data.numel():
            os.ftruncate(self._file, nbytes)
            self.data = torch.frombuffer(mmap.mmap(self._file, nbytes), dtype=torch.uint8)

    def handles(self) -> dict[str, CpuHandle]:
        """Return what a reader needs to map the buffer as it is now."""
        inode = os.fstat(self._file).st_ino
        return {machine_id(): CpuHandle(os.getpid(), self._file, inode, self.data.numel())}


class SharedCpuBuffer:
    """A CPU buffer that all ranks of a group on one machine fill together; the first of them owns it.

    Readers must get its handle only after every rank has written.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._own = CpuBuffer() if dist.get_rank(group) == 0 else None
        self._reader = CpuBufferReader()
        self.data = torch.empty(0, dtype=torch.uint8)

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, uint8 [bytes], at least ``nbytes`` long. A collective, with the same ``nbytes``."""
        if nbytes <= self.data.numel():
            return
        if self._own is not None:
            self._own.reserve(nbytes)
        shared = [self.handles()]
        dist.broadcast_object_list(shared, group=self._group, group_src=0)
        self.data = self._reader.open(shared[0]) if self._own is None else self._own.data

    def handles(self) -> dict[str, CpuHandle]:
        """Return what a reader needs to map the buffer as it is now; only the owner has a handle."""
        return {} if self._own is None else self._own.handles()


class DeviceBuffer:
    """A buffer in device memory, in the process that owns it. It stays allocated between buckets."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._module = torch.get_device_module(device)
        self.data = torch.empty(0, dtype=torch.uint8, device=device)
        self._handles: dict[str, DeviceHandle] = {}

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, uint8 [bytes], at least ``nbytes`` long. Its contents are lost when it grows."""
        if nbytes > self.data.numel():
            self.data = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
            self._handles = {device_uuid(self._device): reduce_tensor(self.data)}

    def wait_for_producers(self) -> None:
        """Wait for the weights: other streams may still compute them."""
        self._module.synchronize()

    def handles(self) -> dict[str, DeviceHandle]:
        """Return what a reader on this device needs, after everything written before is in the buffer.

        The reader is another process, whose streams can only be ordered after this one's by waiting here.
        """
        self._module.current_stream().synchronize()
        return self._handles


class CpuBufferReader:
    """Map CPU buffers of another process, each once; keep the last two mapped."""

    def __init__(self) -> None:
        self._mapped: dict[CpuHandle, torch.Tensor] = {}

    def open(self, handles: dict[str, CpuHandle]) -> torch.Tensor:
        """Map the owner's buffer, uint8 [bytes], for reading; ranks of a SharedCpuBuffer also write it.

        Raises:
            RuntimeError: no rank of the trainer is on this machine, the owner of the buffer has exited, or
                the handle leads to another file.
        """
        own = machine_id()
        if own not in handles:
            raise RuntimeError(
                f"no rank of the trainer on this machine ({own}), from which an engine here could take its "
                f"weights; there are some on {', '.join(handles)}"
            )
        handle = handles[own]
        if handle not in self._mapped:
            while len(self._mapped) >= BUFFERS:
                del self._mapped[next(iter(self._mapped))]
            self._mapped[handle] = torch.frombuffer(_map_file(handle), dtype=torch.uint8)
        return self._mapped[handle]


class DeviceBufferReader:
    """Map device buffers of another process, each once; keep the last two mapped."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._mapped: list[tuple[tuple[Any, ...], torch.Tensor]] = []

    def open(self, handles: dict[str, DeviceHandle]) -> torch.Tensor:
        """Map the buffer on this process's device, uint8 [bytes], for reading.

        Raises:
            RuntimeError: no rank of the trainer has the bucket on this device.
        """
        own = device_uuid(self._device)
        if own not in handles:
            raise RuntimeError(f"no weight buffer on device {own}; there are some on {', '.join(handles)}")
        rebuild, arguments = handles[own]
        for known, data in self._mapped:
            if known == arguments:
                return data
        # The device may have another index in the trainer's process.
        local = self._device.index
        if local is None:
            local = torch.get_device_module(self._device).current_device()
        data = rebuild(*arguments[:DEVICE_ARGUMENT], local, *arguments[DEVICE_ARGUMENT + 1 :])
        self._mapped = [*self._mapped, (arguments, data)][-BUFFERS:]
        return data


def _map_file(handle: CpuHandle) -> mmap.mmap:
    """Map the file of a handle. Raises RuntimeError if it cannot be opened or is another file."""
    path = f"/proc/{handle.pid}/fd/{handle.file}"
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise RuntimeError(f"cannot open the weight buffer {path} of the trainer: {e.strerror}") from e
    try:
        found = os.fstat(file)
        if found.st_ino != handle.inode or found.st_size < handle.nbytes:
            raise RuntimeError(f"{path} is not the weight buffer: its process id or file number was reused")
        return mmap.mmap(file, handle.nbytes)
    finally:
        os.close(file)
