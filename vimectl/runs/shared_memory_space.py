"""Notice that /dev/shm became full during a run, and say so in the reason of its failure.

Memory in /dev/shm is allocated when a page is first written. If there is none left, the kernel sends SIGBUS
to the process that writes, which says nothing about the cause. After the run its files are removed, so the
free space is measured while the run is running.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from dataclasses import replace

from vimectl.runs.exit_status import FULL_BYTES, NO_SPACE, ExitStatus
from vimectl.util.shared_memory import SHM
from vimectl.util.units import size

# How many files are named, the largest first.
NAMED_FILES = 3


class SharedMemorySpace:
    """The lowest free space of /dev/shm since the start, its size in bytes, and the largest files then."""

    def __init__(self) -> None:
        self._free = self._total = 0
        self._largest = ""
        self._measured = False
        self.measure()

    def measure(self) -> None:
        """Measure the free space. It is cheap: files are listed only when there is less than before."""
        try:
            disk = os.statvfs(SHM)
        except OSError:  # there is no /dev/shm
            return
        free = disk.f_bavail * disk.f_frsize
        if not self._measured or free < self._free:
            self._measured, self._free, self._total = True, free, disk.f_blocks * disk.f_frsize
            if free < FULL_BYTES:
                self._largest = _largest_files()

    def explain(self, status: ExitStatus, needed: int) -> ExitStatus:
        """Name a full /dev/shm as the reason of a failure that it explains.

        Args:
            needed: bytes that the run needs there.
        """
        bus_error = "was killed by SIGBUS" in status.reason
        full = self._measured and self._free < FULL_BYTES and (bus_error or NO_SPACE in status.reason)
        # A process that is killed frees what it had in files without a name, before it can be measured.
        short = self._measured and bus_error and self._free < needed
        if not full and not short:
            return status
        problem = f"{SHM} is {'full' if full else 'too small'}"
        used = f"{size(self._total - self._free)} of {size(self._total)} used"
        by = f" by {self._largest}" if self._largest else ""
        consequence = status.reason.replace("was killed by SIGBUS", "could not write to it")
        larger = f"mount -o remount,size=SIZE {SHM}, or --shm-size of a container"
        return replace(
            status,
            reason=f"{problem}: {used}{by}; the run needs {size(needed)}; {consequence}",
            hint=f"remove what fills {SHM}, or make it larger: {larger}",
        )


def _largest_files() -> str:
    """Return the largest files with their owners; the rest of the used space has no name."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(SHM):
            with contextlib.suppress(OSError):  # it was removed after it was listed
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_blocks * 512, entry.path, status.st_uid))
    found.sort(reverse=True)
    return ", ".join(
        f"{path} ({size(used)}, {_user(uid)})" for used, path, uid in found[:NAMED_FILES] if used
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # this machine has no name for the user
        return f"user {uid}"
