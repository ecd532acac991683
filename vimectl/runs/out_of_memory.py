"""What a machine can run out of while a run goes on: memory and disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

# Less than this cannot hold what somebody just failed to write.
FULL_BYTES = 1024**2


def kernel_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """How many processes the kernel has killed for lack of memory since boot, of the whole machine or of a
    control group; proc_vmstat(5). It says nothing of which."""
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def full(folders: Iterable[Path]) -> list[Path]:
    """Those of the folders on whose disk there is no room, or no inode, left for this user."""
    found = []
    for folder in folders:
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue  # it does not exist any more
        if disk.f_bavail * disk.f_frsize < FULL_BYTES or (disk.f_files and disk.f_favail == 0):
            found.append(folder)
    return found
