"""Check which files in /dev/shm a test has left behind, while other processes use /dev/shm too."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from vimectl.util.host import Host
from vimectl.util.shared_memory import SHM, own_files, unused_files, used_inodes

__all__ = ["SHM", "left_files", "list_files", "unused_new_files", "used_by"]

# Seconds that a file may stay unused: an engine of another test may leave files until that test removes them.
REMOVAL_TIMEOUT = 10.0


def list_files() -> set[str]:
    """Return the names of this user's files in /dev/shm."""
    return {Path(file.path).name for file in own_files(Host()).values()}


def unused_new_files(before: set[str]) -> set[str]:
    """Return the names of files that are not in ``before`` and that no process uses."""
    return {Path(file.path).name for file in unused_files(Host()).values()} - before


def left_files(before: set[str]) -> set[str]:
    """Return the unused new files that no process removes within ``REMOVAL_TIMEOUT`` seconds."""
    deadline = time.monotonic() + REMOVAL_TIMEOUT
    while (found := unused_new_files(before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def used_by(pids: Iterable[int]) -> set[int]:
    """Return the inodes of the files that these processes have mapped or open."""
    return set().union(*(used_inodes(Host(), pid) for pid in pids))
