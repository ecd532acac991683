"""Simulate device memory: blocks of a memory file of this process, each counted for its chip."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from torch_npu import _books, _npu

GRANULE = 512  # bytes; what torch_npu's allocator rounds to
SEGMENT = 2 << 20  # bytes; in such steps it takes memory from the driver, and keeps it until empty_cache
PAGE = mmap.PAGESIZE
PUNCH_HOLE = 1 | 2  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


class OutOfMemory(torch.OutOfMemoryError):
    """The error of torch_npu."""


@dataclass(eq=False)
class Block:
    """``size`` bytes at ``offset`` of the file, on a chip, in a ``region`` of the memory saver or none."""

    offset: int
    size: int
    chip: int
    region: str | None = None
    pool: bool = False
    gone: bool = False  # its memory is given back at the moment


class Memory:
    """All device memory of this process, in a sparse mapping, so that addresses never change."""

    def __init__(self) -> None:
        self._size = 4 * _books.TOTAL * _books.CHIPS
        self.file = os.memfd_create("simulated-npu", os.MFD_CLOEXEC)
        os.ftruncate(self.file, self._size)
        self._map = mmap.mmap(self.file, self._size)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._top = 0
        self._unused: dict[int, list[int]] = {}
        self.blocks: dict[int, Block] = {}  # by address
        self.allocated = 0  # bytes of blocks that have their memory
        self.peak = 0
        self._cached = 0  # bytes taken from the driver for blocks of no region
        self._in_use = 0  # bytes of such blocks
        self.region: str | None = None  # of the memory saver, in which is allocated at the moment
        self.pool = False  # whether in a memory pool of vllm-ascend's allocator is allocated at the moment
        self.pool_hooks: tuple[Any, Any] = (None, None)  # told of what is allocated and freed in pools
        self._lock = threading.RLock()

    def allocate(self, nbytes: int) -> torch.UntypedStorage:
        """Return a storage on the current device.

        Raises:
            OutOfMemory: the chip does not have so much.
        """
        chip = _npu.chip()
        exact = self.pool or self.region is not None
        granule = PAGE if exact else GRANULE
        size = -(-max(nbytes, 1) // granule) * granule
        if not (_books.take(chip, size) if exact else self._take_cached(chip, size)):
            raise OutOfMemory(
                f"NPU out of memory. Tried to allocate {size} bytes (NPU {chip}; {_books.TOTAL} bytes total "
                f"capacity; {self.allocated} bytes already allocated; {_books.free(chip)} bytes free)"
            )
        with self._lock:
            block = Block(self._place(size, granule), size, chip, self.region, self.pool)
            self.blocks[self.base + block.offset] = block
        if block.pool:
            self.pool_hooks[0]((0, size, self.base + block.offset, block.offset))
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        storage = construct(self.base + block.offset, nbytes)
        weakref.finalize(storage, self._release, block).atexit = False
        return storage

    def empty_cache(self) -> None:
        """Return unused memory to the driver."""
        with self._lock:
            unused = self._cached - self._in_use
            self._cached = self._in_use
            _books.take(_npu.chip(), -unused)

    def of_region(self, tag: str) -> list[Block]:
        """Return the blocks of a region."""
        return [block for block in list(self.blocks.values()) if block.region == tag]

    def view(self, block: Block) -> memoryview:
        """Return the bytes of a block."""
        return memoryview(self._map)[block.offset : block.offset + block.size]

    def drop(self, block: Block) -> None:
        """Release the memory of a block; its address stays."""
        self._punch(block)
        block.gone = True
        self.allocated -= block.size
        _books.take(block.chip, -block.size)

    def take_again(self, block: Block) -> None:
        """Allocate the memory of a dropped block again.

        Raises:
            OutOfMemory: other processes use it now.
        """
        if not _books.take(block.chip, block.size):
            raise OutOfMemory(f"NPU out of memory. Tried to map {block.size} bytes again (NPU {block.chip})")
        block.gone = False
        self.allocated += block.size

    def _take_cached(self, chip: int, size: int) -> bool:
        with self._lock:
            lacking = self._in_use + size - self._cached
            step = -(-lacking // SEGMENT) * SEGMENT
            if lacking > 0 and not (_books.take(chip, step) or _books.take(chip, step := lacking)):
                return False
            self._cached += max(step, 0)
            self._in_use += size
        return True

    def _place(self, size: int, granule: int) -> int:
        if self._unused.get(size):
            return self._unused[size].pop()
        if granule == PAGE:  # starts at a page
            self._top = -(-self._top // PAGE) * PAGE
        offset, self._top = self._top, self._top + size
        if self._top > self._size:
            raise OutOfMemory("the addresses of the simulated device memory are used up")
        return offset

    def _release(self, block: Block) -> None:
        with self._lock:
            del self.blocks[self.base + block.offset]
            self.allocated -= 0 if block.gone else block.size
            if block.pool:
                self.pool_hooks[1](self.base + block.offset)
            if block.region is None and not block.pool:
                self._in_use -= block.size
            elif not block.gone:
                _books.take(block.chip, -block.size)
            if block.size >= 1 << 20 and not block.offset % PAGE:
                self._punch(block)
            self._unused.setdefault(block.size, []).append(block.offset)

    def _punch(self, block: Block) -> None:
        if _libc.fallocate(self.file, PUNCH_HOLE, block.offset, block.size):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def construct(address: int, nbytes: int) -> torch.UntypedStorage:
    """Return a device storage on memory of another owner."""
    return torch._C._construct_storage_from_data_pointer(address, torch.device("npu", 0), nbytes)


@contextmanager
def region(tag: str) -> Iterator[None]:
    """Put allocations in a region of the memory saver."""
    MEMORY.region = tag
    try:
        yield
    finally:
        MEMORY.region = None


MEMORY = Memory()
