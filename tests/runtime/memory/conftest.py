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
