"""One buffer that two processes map: the owner fills it, peers read it in place.

On the host it is an anonymous memory file. A peer opens it as ``/proc/<pid>/fd/<n>`` of the owner, so
it has no name anywhere and is gone with the last process that maps it.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from vime_runtime.weight_sync.device_identity import machine_id

# How many buffers of one owner take turns: one is filled while the other is read.
BUFFERS = 2


@dataclass(frozen=True)
class HostHandle:
    """Where a peer finds a host buffer, and how it knows that it found the right one."""

    pid: int
    file: int
    inode: int
    nbytes: int


class HostBuffer:
    """The owner's side of a shared host buffer."""

    def __init__(self) -> None:
        self._file = os.memfd_create("vime-bucket", os.MFD_CLOEXEC)
        self.data = torch.empty(0, dtype=torch.uint8)

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, a uint8 tensor, at least ``nbytes`` long. What it held is lost when it grows."""
        if nbytes > self.data.numel():
            os.ftruncate(self._file, nbytes)
            self.data = torch.frombuffer(mmap.mmap(self._file, nbytes), dtype=torch.uint8)

    def handles(self) -> dict[str, HostHandle]:
        """What a peer needs to map the buffer as it is now."""
        inode = os.fstat(self._file).st_ino
        return {machine_id(): HostHandle(os.getpid(), self._file, inode, self.data.numel())}


class SharedHostBuffer:
    """A host buffer that all ranks of a group on one machine fill together; the first of them owns it.

    A peer that is handed it when every rank has written sees all of it.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._own = HostBuffer() if dist.get_rank(group) == 0 else None
        self._peer = HostPeer()
        self.data = torch.empty(0, dtype=torch.uint8)

    def reserve(self, nbytes: int) -> None:
        """Make ``data``, a uint8 tensor, at least ``nbytes`` long. A collective, of the same ``nbytes``."""
        if nbytes <= self.data.numel():
            return
        if self._own is not None:
            self._own.reserve(nbytes)
        told = [self.handles()]
        dist.broadcast_object_list(told, group=self._group, group_src=0)
        self.data = self._peer.open(told[0]) if self._own is None else self._own.data

    def handles(self) -> dict[str, HostHandle]:
        """What a peer needs to map the buffer as it is now; the owner's alone."""
        return {} if self._own is None else self._own.handles()


class HostPeer:
    """The reader's side; buffers that take turns are mapped once, and used until others come."""

    def __init__(self) -> None:
        self._mapped: dict[HostHandle, torch.Tensor] = {}

    def open(self, handles: dict[str, HostHandle]) -> torch.Tensor:
        """Map the owner's buffer: uint8, one dimension. Only to be read, but by ranks that fill it too.

        Raises:
            RuntimeError: no rank of the trainer is on this machine, the owner of the buffer is gone, or
                what is at the handle is not its buffer.
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
            self._mapped[handle] = torch.frombuffer(_map_peer(handle), dtype=torch.uint8)
        return self._mapped[handle]

    def close(self) -> None:
        """Unmap the buffers as soon as no tensor looks into them."""
        self._mapped.clear()


def _map_peer(handle: HostHandle) -> mmap.mmap:
    path = f"/proc/{handle.pid}/fd/{handle.file}"
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise RuntimeError(f"cannot open the weight buffer {path} of the trainer: {e.strerror}") from e
    try:
        found = os.fstat(file)
        if found.st_ino != handle.inode or found.st_size < handle.nbytes:
            raise RuntimeError(f"{path} is not the weight buffer: process id or file number were used again")
        return mmap.mmap(file, handle.nbytes)
    finally:
        os.close(file)
