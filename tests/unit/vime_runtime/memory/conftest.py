"""Helpers for tests of memory: pages the kernel may reclaim, memory pressure, and a directory on a disk."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MADV_PAGEOUT = 21  # asm-generic/mman-common.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def lazily_free_bytes(start: int, size: int) -> int:
    """Return the bytes in a range that the kernel counts as reclaimable (LazyFree in smaps)."""
    total = 0
    inside = False
    for line in Path("/proc/self/smaps").read_bytes().splitlines():
        if line[:1].islower() or line[:1].isdigit():  # the addresses of the next mapping
            first, last = (int(word, 16) for word in line.split(maxsplit=1)[0].split(b"-"))
            inside = first < start + size and start < last
        elif inside and line.startswith(b"LazyFree:"):
            total += int(line.split()[1]) * 1024
    return total


def reclaim_pages(start: int, size: int) -> None:
    """Make the kernel reclaim what it may of a range, as it does under memory pressure."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    if _libc.madvise(first, start + size - first, MADV_PAGEOUT) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.fixture
def disk() -> Iterator[Path]:
    """Yield a directory that is not in /tmp, which is a tmpfs on some machines."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)
