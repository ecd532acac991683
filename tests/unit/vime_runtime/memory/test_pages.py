from __future__ import annotations

import ctypes
import fcntl
import mmap
from pathlib import Path

from vime_runtime.memory.arena import Arena
from vime_runtime.memory.pages import (
    PageMarkers,
    bypass_page_cache,
    drop_page_cache,
    page_cache_bytes,
    resident_page_bytes,
)

from tests.unit.vime_runtime.memory.conftest import lazily_free_bytes, reclaim_pages


def test_counts_touched_pages_as_resident() -> None:
    size = 64 * mmap.PAGESIZE
    with mmap.mmap(-1, size, flags=mmap.MAP_SHARED) as area:
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        assert resident_page_bytes(start, size) == 0
        for page in range(10):
            area[page * mmap.PAGESIZE] = 1
        assert resident_page_bytes(start, size) == 10 * mmap.PAGESIZE


def test_counts_and_drops_pages_in_the_page_cache(disk: Path) -> None:
    path = disk / "file"
    with path.open("wb+", buffering=0) as file:
        assert page_cache_bytes(file.fileno()) == 0
        file.write(bytes(100 * mmap.PAGESIZE))
        assert page_cache_bytes(file.fileno()) == 100 * mmap.PAGESIZE
        drop_page_cache(file.fileno())
        assert page_cache_bytes(file.fileno()) == 0


def test_without_direct_access_the_flags_of_a_file_stay() -> None:
    with open("/proc/self/status", "rb") as file:
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        bypass_page_cache(file.fileno())
        assert fcntl.fcntl(file, fcntl.F_GETFL) == flags


def test_pages_are_kept_before_their_marks_are_compared() -> None:
    arena = Arena()
    block = arena.allocate(16 * 1024**2)
    block[:] = b"x" * len(block)
    markers = PageMarkers(arena.base, len(block))
    arena.free_pages()
    reclaim_pages(arena.base + len(block) // 2, mmap.PAGESIZE)
    assert not markers.intact()
    assert lazily_free_bytes(arena.base, len(block)) == 0
    assert not markers.intact()
