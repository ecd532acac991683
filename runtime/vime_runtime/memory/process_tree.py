"""How much memory a run takes: this process and all its descendants, by the kernel's count."""

from __future__ import annotations

from pathlib import Path

import psutil

# Memory that exists only because of the process; mapped files (libraries) are shared and not counted.
COUNTED = ("RssAnon:", "RssShmem:")


def resident_bytes() -> int:
    """Anonymous and shared-memory bytes of this process and its descendants.

    Source: /proc/<pid>/status (proc_pid_status(5)); cheap enough for every step, unlike smaps.
    """
    own = psutil.Process()
    return sum(_resident(process.pid) for process in [own, *own.children(recursive=True)])


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended since it was listed
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(COUNTED))
