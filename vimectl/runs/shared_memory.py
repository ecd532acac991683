"""Files in /dev/shm: which belong to our descendants, and removing them once those are gone.

A killed process leaves its shared-memory files behind. Their names say nothing about whose
they are, so ownership is seen while the process lives: what it has mapped or open.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vimectl.runs import descendants

SHM = Path("/dev/shm")


class SharedMemoryWatch:
    """Remembers the /dev/shm files, new since it began, that descendants of this process were seen to use.

    A file is known by its inode. Its name in a process's mappings may be another: the C library maps a
    semaphore under a temporary name before it gives it its own (sem_open(3)).
    """

    def __init__(self) -> None:
        self._before = set(_listing())
        self._ours: set[int] = set()
        self._examined: set[int] = set()

    def look(self, again: bool = False) -> None:
        """Look at what the descendants use, when there is a new file; ``again``: a file not known as ours."""
        new = set(_listing()) - self._before - self._ours
        if not new <= (set() if again else self._examined):
            for process in descendants.living():
                self._ours |= _used_by(process.pid) & new
            self._examined |= new

    def remove(self) -> list[Path]:
        """Delete what is ours, still there and used by nobody any more. Returns what was deleted."""
        listing = _listing()
        left = self._ours & set(listing)
        if left:
            for pid in _pids():
                left -= _used_by(pid)
        removed = [SHM / listing[inode] for inode in sorted(left)]
        for path in removed:
            path.unlink(missing_ok=True)
        return removed


def _listing() -> dict[int, str]:
    """This user's files in /dev/shm, from inode to name."""
    found = {}
    for entry in os.scandir(SHM):
        with contextlib.suppress(FileNotFoundError):  # it was removed since it was listed
            status = entry.stat(follow_symlinks=False)
            if status.st_uid == os.getuid() and entry.is_file(follow_symlinks=False):
                found[status.st_ino] = entry.name
    return found


def _used_by(pid: int) -> set[int]:
    """Inodes of the /dev/shm files a process has mapped or open; none when it is gone or not ours to read."""
    found = set()
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            # address perms offset dev inode path, proc_pid_maps(5)
            if f" {SHM}/" in line:
                found.add(int(line.split(maxsplit=5)[4]))
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(entry.path).startswith(f"{SHM}/"):
                    found.add(os.stat(entry.path).st_ino)
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]
