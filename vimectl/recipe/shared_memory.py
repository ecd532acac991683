"""Files in /dev/shm: which belong to our descendants, and removing them once those are gone.

A killed process leaves its shared-memory files behind. Their names say nothing about whose
they are, so ownership is seen while the process lives: what it has mapped or open.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vimectl.recipe import processes

SHM = Path("/dev/shm")


class SharedMemoryWatch:
    """Remembers the /dev/shm files, new since it began, that descendants of this process were seen to use."""

    def __init__(self) -> None:
        self._before = set(_listing())
        self._ours: set[tuple[str, int]] = set()

    def look(self) -> None:
        """Look at the descendants' mappings and open files, when there is a file not yet accounted for."""
        if set(_listing()) - self._before - self._ours:
            for process in processes.living():
                self._ours |= _used_by(process.pid) - self._before

    def remove(self) -> list[Path]:
        """Delete what is ours, still there and used by nobody any more. Returns what was deleted."""
        left = self._ours & set(_listing())
        if left:
            for pid in _pids():
                left -= _used_by(pid)
        removed = []
        for name, _inode in sorted(left):
            with contextlib.suppress(FileNotFoundError):
                (SHM / name).unlink()
                removed.append(SHM / name)
        return removed


def _listing() -> list[tuple[str, int]]:
    """Names and inodes of this user's files in /dev/shm; names are used again, the pair is not."""
    found = []
    for entry in os.scandir(SHM):
        with contextlib.suppress(FileNotFoundError):  # it was removed since it was listed
            status = entry.stat(follow_symlinks=False)
            if status.st_uid == os.getuid() and entry.is_file(follow_symlinks=False):
                found.append((entry.name, status.st_ino))
    return found


def _used_by(pid: int) -> set[tuple[str, int]]:
    """The /dev/shm files that a process has mapped or open; nothing when it is gone or not ours to read."""
    found = set()
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            # address perms offset dev inode path, proc_pid_maps(5)
            if f" {SHM}/" in line:
                fields = line.split(maxsplit=5)
                found.add((fields[5].removeprefix(f"{SHM}/"), int(fields[4])))
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith(f"{SHM}/"):
                    found.add((target.removeprefix(f"{SHM}/"), os.stat(entry.path).st_ino))
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
