"""A region in CPU memory; while it is offloaded its contents are in a file."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vime_runtime.memory.arena import AllocateInArena, Arena
from vime_runtime.memory.pages import PageMarkers, bypass_page_cache, drop_page_cache, page_cache_bytes
from vime_runtime.memory.region import MemoryUsage, OffloadableRegion

# The kernel transfers at most about 2 GiB per call. Smaller chunks also let signals be handled in between,
# and a chunk of zeros is not written.
CHUNK_BYTES = 4 * 1024**2

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class CpuRegion(OffloadableRegion):
    """A region in CPU memory.

    Args:
        directory: directory of the offload file. It should be on a disk: on a tmpfs the bytes stay in
            memory, which ``memory_usage`` shows. The file has no name, so the kernel removes it when
            the process exits.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self._arena = Arena()
        self._file = tempfile.TemporaryFile(dir=directory, prefix="vime-region-", buffering=0)  # noqa: SIM115
        bypass_page_cache(self._file.fileno())
        self._saved: dict[tuple[int, int], PageMarkers] = {}  # (offset, size) of each chunk in the file

    def discard(self) -> None:
        """Free the memory without saving it: after ``resume`` each byte has its old value or is zero.

        Raises:
            RuntimeError: the region is offloaded already.
        """
        self._require(offloaded=False)
        self._arena.free_pages()
        self.offloaded = True

    def memory_usage(self) -> MemoryUsage:
        """Measure with mincore(2); pages of the offload file in the page cache count as resident.

        The resident pages of an offloaded region are reclaimable, because no code accesses them. smaps has
        that number too (LazyFree), but reading it takes some 20 ms.
        """
        pages = self._arena.resident_bytes()
        cached = page_cache_bytes(self._file.fileno())
        if self.offloaded:
            return MemoryUsage(cached, reclaimable=pages)
        return MemoryUsage(pages + cached)

    def _allocate(self) -> AbstractContextManager[Any]:
        return AllocateInArena(self._arena)

    def _offload(self) -> None:
        """Write live pages to the file, then let the kernel reclaim them.

        Zeros are not written: between steps a quarter of an fp32 trainer is gradients that are zero. They
        need not be restored either, because a page that the kernel reclaimed reads as zeros.
        """
        base = self._arena.base
        chunks = [(offset, size) for offset, size in self._chunks() if not _is_zero(base + offset, size)]
        try:
            self._transfer(chunks, os.pwritev)
            drop_page_cache(self._file.fileno())
        except OSError as e:
            os.ftruncate(self._file.fileno(), 0)
            total = sum(size for _, size in chunks)
            raise OSError(
                e.errno, f"cannot offload {total} bytes of a region: {e.strerror}", str(self._directory)
            ) from e
        self._saved = {(offset, size): PageMarkers(base + offset, size) for offset, size in chunks}
        self._arena.free_pages()

    def _restore(self) -> None:
        """Read the chunks of which the kernel reclaimed pages. The file keeps its disk space."""
        self._transfer([chunk for chunk, markers in self._saved.items() if not markers.intact()], os.preadv)
        drop_page_cache(self._file.fileno())
        self._saved = {}

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """Yield offset and size of chunks that cover the pages of all live blocks."""
        end = 0
        for offset, size in self._arena.live_ranges():
            start = max(offset // mmap.PAGESIZE * mmap.PAGESIZE, end)
            end = -(-(offset + size) // mmap.PAGESIZE) * mmap.PAGESIZE
            for at in range(start, end, CHUNK_BYTES):
                yield at, min(CHUNK_BYTES, end - at)

    def _transfer(
        self, chunks: list[tuple[int, int]], move: Callable[[int, list[memoryview], int], int]
    ) -> None:
        """Read or write each chunk at the same offset of the arena and the file."""
        for offset, size in chunks:
            done = 0
            while done < size:
                at = offset + done
                view = memoryview((ctypes.c_char * (size - done)).from_address(self._arena.base + at))
                moved = move(self._file.fileno(), [view], at)
                if moved == 0:
                    raise OSError(0, "the offload file is shorter than expected")
                done += moved


def _is_zero(address: int, size: int) -> bool:
    """Return True if the first byte is zero and each equals the next; stop at the first that differs."""
    first = ctypes.c_char.from_address(address).value == b"\0"
    return first and _libc.memcmp(address, address + 1, size - 1) == 0
