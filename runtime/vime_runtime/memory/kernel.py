"""What the kernel knows of memory: which pages of an address range or of a file are resident."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from vime_runtime.memory.region import Residency

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_libc.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)

# Wait for earlier write-back, start it for what is dirty, wait for it: uapi/linux/fs.h.
WRITE_AND_WAIT = 1 | 2 | 4


def range_residency(start: int, end: int) -> Residency:
    """Size and resident bytes of this process's accessible mappings inside [start, end), from smaps.

    ``start`` and ``end`` must not cut a mapping in two.
    """
    mapped = resident = 0
    for first, last, permissions, rss in _mappings():
        if start <= first and last <= end and permissions.startswith("r"):
            mapped += last - first
            resident += rss
    return Residency(mapped, resident)


def cached_bytes(file: int) -> int:
    """Bytes of an open file in the page cache (mincore(2)); the caller must be able to write it."""
    size = os.fstat(file).st_size
    if size == 0:
        return 0
    with mmap.mmap(file, size) as view:
        pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        if _libc.mincore(address, size, pages) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return sum(page & 1 for page in pages) * mmap.PAGESIZE


def uncache(file: int) -> None:
    """Write an open file back and drop it from the page cache.

    sync_file_range(2) instead of fdatasync: nobody reads the file after a crash, so there is no
    reason to wait until the file system's journal, with everybody else's changes, is on the disk.
    """
    if _libc.sync_file_range(file, 0, 0, WRITE_AND_WAIT) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)


def _mappings() -> Iterator[tuple[int, int, str, int]]:
    """Start, end, permissions and resident bytes of every mapping; the format is in proc_pid_smaps(5)."""
    first = last = 0
    permissions = ""
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        field, _, rest = line.partition(" ")
        if field == "Rss:":
            yield first, last, permissions, int(rest.split()[0]) * 1024
        elif not field.endswith(":"):
            first, last = (int(end, 16) for end in field.split("-"))
            permissions = rest[:4]
