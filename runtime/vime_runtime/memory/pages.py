"""Pages of memory: count resident ones, bypass the page cache, detect those that the kernel reclaimed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
from typing import Any

import torch


def _raise_os_error(result: Any, function: Any, arguments: Any) -> Any:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


libc = ctypes.CDLL(None, use_errno=True)
libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
for _function in (libc.mincore, libc.mprotect, libc.sync_file_range):
    _function.errcheck = _raise_os_error

# SYNC_FILE_RANGE_WAIT_BEFORE | WRITE | WAIT_AFTER (uapi/linux/fs.h): wait for earlier write-back, start
# write-back of dirty pages, wait for it.
WRITE_AND_WAIT = 1 | 2 | 4

_WORDS = mmap.PAGESIZE // torch.int64.itemsize
_MARK = -1  # any word but zero


def resident_page_bytes(start: int, size: int) -> int:
    """Return how many of ``size`` mapped bytes from page boundary ``start`` are resident, by mincore(2).

    smaps takes some 40 ms instead: the kernel walks every mapping of the process and this process parses all
    of it.
    """
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc.mincore(start, size, pages)
    return bytes(pages).count(1) * mmap.PAGESIZE


def page_cache_bytes(file: int) -> int:
    """Return the bytes of an open, writable file that are in the page cache."""
    size = os.fstat(file).st_size
    if size == 0:
        return 0
    with mmap.mmap(file, size) as view:
        return resident_page_bytes(ctypes.addressof(ctypes.c_char.from_buffer(view)), size)


def bypass_page_cache(file: int) -> None:
    """Set O_DIRECT on an open file where the file system supports it.

    Through the page cache, each transfer is a copy that must be written back and dropped before its memory
    is free.
    """
    with contextlib.suppress(OSError):
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_DIRECT)


def drop_page_cache(file: int) -> None:
    """Write an open file back and drop it from the page cache.

    This uses sync_file_range(2) instead of fdatasync(2). The file is not read after a crash, so there is no
    reason to wait until the file system's journal, with changes of other processes, is on the disk.
    """
    libc.sync_file_range(file, 0, 0, WRITE_AND_WAIT)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


class PageMarkers:
    """A mark in every page of a range, to be set before the pages are freed with MADV_FREE.

    The kernel may reclaim any of these pages and replace it with zeros. The first two words of each page are
    saved. The first word is overwritten by the mark: it is zero in a page that was reclaimed. Writing the
    second word makes the kernel keep the page, and only after that write is the mark's value final.
    """

    def __init__(self, address: int, size: int) -> None:
        """Mark ``size`` bytes of whole pages at ``address``; they must not be accessed before ``intact``."""
        pages = torch.frombuffer((ctypes.c_char * size).from_address(address), dtype=torch.int64)
        self._words = pages.view(-1, _WORDS)[:, :2]  # int64 [pages, 2]
        self._saved = self._words.clone()
        self._words[:, 0] = _MARK

    def intact(self) -> bool:
        """Keep the pages. Return True and restore their words if the kernel reclaimed none of them.

        Otherwise the caller must fill all pages: some are zero, and all lack their first word.
        """
        self._words[:, 1] = self._saved[:, 1]
        intact = bool((self._words[:, 0] == _MARK).all())
        if intact:
            self._words[:, 0] = self._saved[:, 0]
        return intact
