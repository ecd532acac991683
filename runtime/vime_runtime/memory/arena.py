"""One reserved range of addresses, and blocks of it that tensors live in."""

from __future__ import annotations

import bisect
import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Iterator

from vime_runtime.memory.kernel import resident_bytes
from vime_runtime.memory.region import Residency

# What torch aligns CPU storages to, so kernels see the alignment they know.
ALIGNMENT = 64
# Address space is made usable in steps of this size, to keep mprotect calls and mappings few.
STEP = 16 * 1024**2

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

MAP_NORESERVE = 0x4000  # asm-generic/mman-common.h; not in the mmap module before Python 3.13
_MAP_FAILED = ctypes.c_void_p(-1).value


class Arena:
    """Reserved addresses, twice as many as the machine has memory; pages are taken as they are touched.

    A block is handed out as a ctypes buffer and is free again when the last reference to that
    buffer is gone. Freed blocks are reused, first fit; freed neighbours merge.
    """

    def __init__(self) -> None:
        self._size = 2 * os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        self._base = _map(self._size)
        weakref.finalize(self, _libc.munmap, self._base, self._size).atexit = False
        self._usable = 0  # bytes from the base that may be read and written
        self._top = 0  # bytes from the base that blocks were ever cut from
        self._free: list[tuple[int, int]] = []  # (offset, size) below the top, sorted
        self._live: dict[int, int] = {}  # offset -> size
        # Finalizers run wherever a reference is dropped, be it in the middle of an allocation.
        self._lock = threading.RLock()

    @property
    def base(self) -> int:
        """The address of offset 0."""
        return self._base

    def __contains__(self, address: int) -> bool:
        return self._base <= address < self._base + self._size

    def allocate(self, nbytes: int) -> ctypes.Array[ctypes.c_char]:
        """Cut a block of ``nbytes`` > 0.

        Raises:
            MemoryError: the reserved addresses, or the kernel's memory, are used up.
        """
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        with self._lock:
            offset = self._take(size)
            self._live[offset] = size
        block = (ctypes.c_char * nbytes).from_address(self._base + offset)
        weakref.finalize(block, self._release, offset).atexit = False
        return block

    def live(self) -> Iterator[tuple[int, int]]:
        """Offset and size of every run of adjacent live blocks, in order of address."""
        with self._lock:
            blocks = sorted(self._live.items())
        first = last = 0
        for offset, size in blocks:
            if offset != last:
                if last > first:
                    yield first, last - first
                first = offset
            last = offset + size
        if last > first:
            yield first, last - first

    def give_back(self) -> None:
        """Give every page back to the kernel, which takes it when somebody needs memory.

        Until a page is written again it holds its old bytes or zeros. What nobody took meanwhile needs no
        new page at the next waking: cleared, or on a virtual machine even asked of the host, that costs up
        to seconds a gigabyte. A kernel, or a stand-in for one, that has no such advice takes all at once.
        """
        if not self._usable or _libc.madvise(self._base, self._usable, mmap.MADV_FREE) == 0:
            return
        if _libc.madvise(self._base, self._usable, mmap.MADV_DONTNEED) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def residency(self) -> Residency:
        """The usable part of the range, and how much of it is in memory, given back or not."""
        return Residency(self._usable, resident_bytes(self._base, self._usable))

    def _take(self, size: int) -> int:
        for index, (offset, room) in enumerate(self._free):
            if room >= size:
                if room == size:
                    del self._free[index]
                else:
                    self._free[index] = (offset + size, room - size)
                return offset
        offset = self._top
        self._make_usable(offset + size)
        self._top = offset + size
        return offset

    def _make_usable(self, end: int) -> None:
        if end <= self._usable:
            return
        if end > self._size:
            raise MemoryError(f"the arena's {self._size} bytes of addresses are used up")
        goal = min(-(-end // STEP) * STEP, self._size)
        if _libc.mprotect(self._base, goal, mmap.PROT_READ | mmap.PROT_WRITE) != 0:
            error = os.strerror(ctypes.get_errno())
            raise MemoryError(f"the kernel refused {goal - self._usable} more bytes: {error}")
        self._usable = goal

    def _release(self, offset: int) -> None:
        with self._lock:
            size = self._live.pop(offset)
            at = bisect.bisect(self._free, (offset, 0))
            if at < len(self._free) and self._free[at][0] == offset + size:
                size += self._free.pop(at)[1]
            if at and sum(self._free[at - 1]) == offset:
                at -= 1
                offset, before = self._free.pop(at)
                size += before
            self._free.insert(at, (offset, size))


def _map(size: int) -> int:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    base = _libc.mmap(None, size, 0, flags, -1, 0)  # 0 is PROT_NONE: addresses only
    if base == _MAP_FAILED:
        error = os.strerror(ctypes.get_errno())
        raise MemoryError(f"cannot reserve {size} bytes of addresses: {error}")
    # A first touch costs several times more in pages of 4 KiB, all of them at every waking. A kernel without
    # transparent huge pages refuses, and nothing but the time is different.
    _libc.madvise(base, size, mmap.MADV_HUGEPAGE)
    return base
