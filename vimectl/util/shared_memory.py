"""Find the files in /dev/shm and the processes that use them.

A killed process leaves its shared memory files behind. A file is identified by its inode, not by its name:
glibc maps a named semaphore under a temporary name before it links it to its own (sem_open(3)).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass

from vimectl.util.host import Host

SHM = "/dev/shm"  # nosec B108 # listed
# address perms offset dev inode path, proc_pid_maps(5)
_MAPPED = re.compile(rf"^\S+ \S+ \S+ \S+ (\d+) +{SHM}/", re.MULTILINE)


@dataclass(frozen=True)
class ShmFile:
    """A file in /dev/shm: its path on the machine and its size in bytes."""

    path: str
    size: int


def own_files(host: Host) -> dict[int, ShmFile]:
    """Return this user's regular files in /dev/shm by inode; empty when there is no such directory."""
    found = {}
    with suppress(OSError):
        for entry in os.scandir(host.path(SHM)):
            with suppress(OSError):  # removed since it was listed
                status = entry.stat(follow_symlinks=False)
                if status.st_uid == os.getuid() and entry.is_file(follow_symlinks=False):
                    found[status.st_ino] = ShmFile(f"{SHM}/{entry.name}", status.st_size)
    return found


def used_inodes(host: Host, pid: int) -> set[int]:
    """Return the inodes of the /dev/shm files that a process has mapped or open.

    Empty when the process has exited or belongs to another user.
    """
    used = {int(inode) for inode in _MAPPED.findall(host.read(f"/proc/{pid}/maps") or "")}
    with suppress(OSError):
        for entry in os.scandir(host.path(f"/proc/{pid}/fd")):
            with suppress(OSError):  # closed since it was listed
                if os.readlink(entry.path).startswith(f"{SHM}/"):
                    used.add(os.stat(entry.path).st_ino)
    return used


def unused_files(host: Host) -> dict[int, ShmFile]:
    """Return this user's files in /dev/shm that no readable process uses, by inode."""
    listed = own_files(host)
    used: set[int] = set()
    for pid in filter(str.isdecimal, host.names("/proc") if listed else ()):
        used |= used_inodes(host, int(pid))
    # List again: a file of a process that has just exited may have been removed by now.
    return {inode: file for inode, file in own_files(host).items() if inode in listed and inode not in used}
