"""Files in /dev/shm: which ones processes use, and which ones nobody does any more.

A file is known by its inode: a semaphore is mapped under another name than it has in the end, sem_open(3).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

SHM = Path("/dev/shm")
# An engine that ends in a test beside may leave files for as long as this, until that test removes them.
PASSING_SECONDS = 10.0


def names() -> set[str]:
    """Every file that is there. Directories are nobody's shared memory: other tests have theirs there."""
    return {entry.name for entry in SHM.iterdir() if entry.is_file()}


def unused(before: set[str]) -> set[str]:
    """What has come since and no process uses: what others do there meanwhile is theirs."""
    new = {name: inode for name in names() - before if (inode := _inode(SHM / name)) is not None}
    in_use = used_by(psutil.pids())
    return {name for name, inode in new.items() if inode not in in_use and _inode(SHM / name) == inode}


def left(before: set[str]) -> set[str]:
    """What has come since, no process uses, and nobody removes either."""
    deadline = time.monotonic() + PASSING_SECONDS
    while (found := unused(before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def used_by(pids: Iterable[int]) -> set[int]:
    """Inodes of the files that these processes have mapped or open. A process may end while we look."""
    used: set[int | None] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
            used |= {int(line.split()[4]) for line in lines if f" {SHM}/" in line}
        with contextlib.suppress(OSError):
            used |= {_opened(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
    return {inode for inode in used if inode is not None}


def _opened(descriptor: Path) -> int | None:
    try:
        return _inode(descriptor) if os.readlink(descriptor).startswith(f"{SHM}/") else None
    except OSError:
        return None  # it was closed while we looked


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None
