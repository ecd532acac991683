"""What the kernel knows of memory: which pages of an address range or of a file are resident."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

# Wait for earlier write-back, start it for what is dirty, wait for it: uapi/linux/fs.h.
WRITE_AND_WAIT = 1 | 2 | 4


def resident_bytes(start: int, size: int) -> int:
    """Bytes of ``size`` mapped bytes from the page boundary ``start`` that are in memory (mincore(2)).

    Not from smaps: there the kernel walks through, and we read, every mapping of the process, some 40 ms of a
    step each time.
    """
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    if size and _libc.mincore(start, size, pages) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return bytes(pages).count(1) * mmap.PAGESIZE


def cached_bytes(file: int) -> int:
    """Bytes of an open file in the page cache; the caller must be able to write it."""
    size = os.fstat(file).st_size
    if size == 0:
        return 0
    with mmap.mmap(file, size) as view:
        return resident_bytes(ctypes.addressof(ctypes.c_char.from_buffer(view)), size)


def bypass_cache(file: int) -> None:
    """Let reads and writes of whole pages go past the page cache (O_DIRECT), where the file system can.

    Otherwise each is a copy, and has to be written back and dropped before its memory is free.
    """
    with contextlib.suppress(OSError):
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_DIRECT)


def uncache(file: int) -> None:
    """Write an open file back and drop it from the page cache.

    sync_file_range(2) instead of fdatasync: nobody reads the file after a crash, so there is no
    reason to wait until the file system's journal, with everybody else's changes, is on the disk.
    """
    if _libc.sync_file_range(file, 0, 0, WRITE_AND_WAIT) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
