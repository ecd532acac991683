from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from pathlib import Path

from vime_runtime.memory.kernel import bypass_cache, cached_bytes, resident_bytes, uncache


def test_only_touched_pages_of_a_range_are_resident() -> None:
    size = 64 * mmap.PAGESIZE
    with mmap.mmap(-1, size, flags=mmap.MAP_SHARED) as area:
        start = ctypes.addressof(ctypes.c_char.from_buffer(area))
        assert resident_bytes(start, size) == 0
        for page in range(10):
            area[page * mmap.PAGESIZE] = 1
        assert resident_bytes(start, size) == 10 * mmap.PAGESIZE


def test_pages_of_a_file_are_seen_coming_and_going(disk: Path) -> None:
    path = disk / "file"
    with path.open("wb+", buffering=0) as file:
        assert cached_bytes(file.fileno()) == 0
        file.write(bytes(100 * mmap.PAGESIZE))
        assert cached_bytes(file.fileno()) == 100 * mmap.PAGESIZE
        uncache(file.fileno())
        assert cached_bytes(file.fileno()) == 0


def test_whole_pages_go_past_the_cache(disk: Path) -> None:
    with (disk / "file").open("wb+", buffering=0) as file, mmap.mmap(-1, 2 * mmap.PAGESIZE) as pages:
        pages[:] = b"x" * len(pages)
        bypass_cache(file.fileno())
        assert os.pwritev(file.fileno(), [pages], 0) == len(pages)
        assert cached_bytes(file.fileno()) == 0
        pages[:] = bytes(len(pages))
        assert os.preadv(file.fileno(), [pages], 0) == len(pages)
        assert pages[:] == b"x" * len(pages)
        assert cached_bytes(file.fileno()) == 0


def test_a_file_system_that_cannot_is_left_as_it_is() -> None:
    with open("/proc/self/status", "rb") as file:
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        bypass_cache(file.fileno())
        assert fcntl.fcntl(file, fcntl.F_GETFL) == flags
