from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from pathlib import Path

import torch
from vime_runtime.memory.arena import Arena
from vime_runtime.memory.pages import (
    PageMarkers,
    bypass_page_cache,
    drop_page_cache,
    page_cache_bytes,
    resident_page_bytes,
)

from tests.unit.vime_runtime.memory.conftest import lazily_free_bytes, reclaim_pages

SIZE = 16 * 1024**2


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


def test_direct_transfers_leave_nothing_in_the_page_cache(disk: Path) -> None:
    with (disk / "file").open("wb+", buffering=0) as file, mmap.mmap(-1, 2 * mmap.PAGESIZE) as pages:
        pages[:] = b"x" * len(pages)
        bypass_page_cache(file.fileno())
        assert os.pwritev(file.fileno(), [pages], 0) == len(pages)
        assert page_cache_bytes(file.fileno()) == 0
        pages[:] = bytes(len(pages))
        assert os.preadv(file.fileno(), [pages], 0) == len(pages)
        assert pages[:] == b"x" * len(pages)
        assert page_cache_bytes(file.fileno()) == 0


def test_without_direct_access_the_flags_of_a_file_stay() -> None:
    with open("/proc/self/status", "rb") as file:
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        bypass_page_cache(file.fileno())
        assert fcntl.fcntl(file, fcntl.F_GETFL) == flags


def marked_pages() -> tuple[Arena, torch.Tensor, PageMarkers]:
    """Return an arena with freed, marked pages that hold ``arange``."""
    arena = Arena()
    tensor = torch.frombuffer(arena.allocate(SIZE), dtype=torch.int64)
    torch.arange(len(tensor), out=tensor)
    markers = PageMarkers(arena.base, SIZE)
    arena.free_pages()
    return arena, tensor, markers


def test_intact_pages_keep_their_contents_and_are_no_longer_reclaimable() -> None:
    arena, tensor, markers = marked_pages()
    assert lazily_free_bytes(arena.base, SIZE) > 0
    assert markers.intact()
    assert lazily_free_bytes(arena.base, SIZE) == 0
    reclaim_pages(arena.base, SIZE)
    assert torch.equal(tensor, torch.arange(len(tensor)))


def test_one_reclaimed_page_is_detected() -> None:
    arena, _, markers = marked_pages()
    resident = arena.memory_usage().resident
    reclaim_pages(arena.base + SIZE // 2, mmap.PAGESIZE)
    assert arena.memory_usage().resident < resident
    assert not markers.intact()
    assert lazily_free_bytes(arena.base, SIZE) == 0
    assert not markers.intact()
