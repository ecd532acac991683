"""What tests of memory need: a kernel that is short of it, and a place on a disk."""

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
    """Bytes of the mappings in a range that the kernel itself counts as its to take, from smaps."""
    total = 0
    inside = False
    for line in Path("/proc/self/smaps").read_bytes().splitlines():
        if line[:1].islower() or line[:1].isdigit():  # the addresses of the next mapping
            first, last = (int(word, 16) for word in line.split(maxsplit=1)[0].split(b"-"))
            inside = first < start + size and start < last
        elif inside and line.startswith(b"LazyFree:"):
            total += int(line.split()[1]) * 1024
    return total


def take_free_pages(start: int, size: int) -> None:
    """Let the kernel take what it may of a range, as it does when somebody needs memory."""
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    if _libc.madvise(first, start + size - first, MADV_PAGEOUT) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.fixture
def disk() -> Iterator[Path]:
    """Not in /tmp, which on some machines is memory, and no place to give memory back to."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        yield Path(directory)
