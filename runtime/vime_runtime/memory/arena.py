"""A reserved address range, and a context in which torch allocates CPU tensors in it."""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import mmap
import os
import threading
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vime_runtime.memory.pages import libc, resident_page_bytes

# torch aligns CPU storages to 64 bytes; kernels rely on it.
ALIGNMENT = 64
# Addresses become accessible in steps of this size, which keeps mprotect calls and mappings few.
GROWTH_BYTES = 16 * 1024**2

MAP_NORESERVE = 0x4000  # asm-generic/mman-common.h; not in the mmap module before Python 3.13

_aten = torch.ops.aten


class Arena:
    """An allocator in a reserved address range of twice the machine's memory. Accessing a page takes memory.

    ``allocate`` returns a block as a ctypes buffer; the block is free when the last reference to the buffer
    is dropped. Free blocks are reused, first fit, and merged with free neighbors.
    """

    def __init__(self) -> None:
        self._size = 2 * os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._map = mmap.mmap(-1, self._size, flags, prot=0)  # PROT_NONE: addresses only
        # The address of offset 0.
        self.base: int = numpy.frombuffer(self._map, numpy.uint8).ctypes.data
        # With pages of 4 KiB the first access takes several times longer, at every ``resume``. A kernel
        # without transparent huge pages refuses the advice; then it is only slower.
        with contextlib.suppress(OSError):
            self._map.madvise(mmap.MADV_HUGEPAGE)
        self._accessible = 0  # bytes from the base that may be read and written
        self._top = 0  # offset of the end of the highest block so far
        self._free: list[tuple[int, int]] = []  # (offset, size) below the top, sorted
        # Finalizers run wherever a reference is dropped, even in the middle of an allocation.
        self._lock = threading.RLock()

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.base + self._size

    def allocate(self, nbytes: int) -> ctypes.Array[ctypes.c_char]:
        """Allocate a block of ``nbytes`` > 0.

        Raises:
            MemoryError: the reserved addresses, or the kernel's memory, are used up.
        """
        size = -(-nbytes // ALIGNMENT) * ALIGNMENT
        with self._lock:
            offset = self._find(size)
        block = (ctypes.c_char * nbytes).from_address(self.base + offset)
        weakref.finalize(block, self._release, offset, size).atexit = False
        return block

    def live_ranges(self) -> Iterator[tuple[int, int]]:
        """Yield offset and size of every run of adjacent live blocks, in order of address."""
        with self._lock:
            free = [*self._free, (self._top, 0)]
        start = 0
        for offset, size in free:
            if offset > start:
                yield start, offset - start
            start = offset + size

    def free_pages(self) -> None:
        """Let the kernel reclaim every page under memory pressure (MADV_FREE).

        Until a page is written again it holds its old bytes or zeros. A page that the kernel did not
        reclaim costs nothing at the next ``resume``. A new page has to be cleared, and on a virtual machine
        requested from the host, which takes up to seconds per gigabyte. On a kernel, or an emulation of one,
        without MADV_FREE, all pages are dropped at once (MADV_DONTNEED).
        """
        try:
            self._map.madvise(mmap.MADV_FREE, 0, self._accessible)
        except OSError:
            self._map.madvise(mmap.MADV_DONTNEED, 0, self._accessible)

    def resident_bytes(self) -> int:
        """Return the bytes of resident pages, including those that were freed but not reclaimed."""
        return resident_page_bytes(self.base, self._accessible)

    def _find(self, size: int) -> int:
        """Return the offset of ``size`` free bytes, in the first free block that fits or at the top."""
        for index, (offset, room) in enumerate(self._free):
            if room >= size:
                self._free[index : index + 1] = [(offset + size, room - size)] if room > size else []
                return offset
        offset = self._top
        self._make_accessible(offset + size)
        self._top = offset + size
        return offset

    def _make_accessible(self, end: int) -> None:
        if end <= self._accessible:
            return
        if end > self._size:
            raise MemoryError(f"the arena's {self._size} bytes of addresses are used up")
        goal = min(-(-end // GROWTH_BYTES) * GROWTH_BYTES, self._size)
        try:
            libc.mprotect(self.base, goal, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as e:
            raise MemoryError(f"the kernel refused {goal - self._accessible} more bytes: {e.strerror}") from e
        self._accessible = goal

    def _release(self, offset: int, size: int) -> None:
        with self._lock:
            at = bisect.bisect(self._free, (offset, 0))
            if at < len(self._free) and self._free[at][0] == offset + size:
                size += self._free.pop(at)[1]
            if at and sum(self._free[at - 1]) == offset:
                at -= 1
                offset, before = self._free.pop(at)
                size += before
            self._free.insert(at, (offset, size))


class AllocateInArena(TorchDispatchMode):
    """A context in which every new CPU storage that an operator returns is in the arena.

    A storage is new if none of the operator's inputs has it: results of views and of in-place operators stay
    where they are, and so do tensors from outside. Temporaries are in the arena too; their blocks are free
    as soon as they are dropped. ``torch.tensor(...)`` of Python values is not an operator and is not
    affected. This is intended: among such constants are those of libraries that are imported in the context,
    and they must survive when the contents of a region are discarded.
    """

    def __init__(self, arena: Arena) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._arena = arena

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in (_aten.empty.memory_format, _aten.zeros.default):
            placed = self._empty(args, kwargs)
            if placed is not None:
                return placed.zero_() if func is _aten.zeros.default else placed
        result = func(*args, **kwargs)
        known = {_address(tensor) for tensor in _tensors((args, kwargs))}
        moved: dict[int, torch.UntypedStorage] = {}
        for tensor in _tensors(result):
            address = _address(tensor)
            if address and address not in known and address not in self._arena:
                if address not in moved:
                    storage = tensor.untyped_storage()
                    moved[address] = self._storage(storage.nbytes()).copy_(storage)
                tensor.set_(moved[address], tensor.storage_offset(), tensor.size(), tensor.stride())
        return result

    def _empty(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
        """Allocate in the arena directly: a large tensor must not exist twice, even for a moment."""
        if kwargs.get("layout") not in (None, torch.strided):
            return None
        if torch.device(kwargs.get("device") or "cpu").type != "cpu":
            return None
        like = torch.empty(*args, **{**kwargs, "device": "meta", "pin_memory": False})
        nbytes = like.untyped_storage().nbytes()
        if not nbytes:
            return None
        tensor = torch.empty(0, dtype=like.dtype, device="cpu")
        return tensor.set_(self._storage(nbytes), 0, like.size(), like.stride())

    def _storage(self, nbytes: int) -> torch.UntypedStorage:
        # The storage keeps the ctypes block alive; when the block is dropped, its range in the arena is free.
        return torch.frombuffer(self._arena.allocate(nbytes), dtype=torch.uint8).untyped_storage()


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _address(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage, or 0 for a tensor without bytes in CPU memory."""
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()
