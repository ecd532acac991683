"""Which process is meant, beyond its id: an id is used again once its process is gone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Identity:
    """One process of one boot of one machine; ``started`` is in clock ticks since that boot."""

    pid: int
    started: int
    boot: str
    host: str

    @classmethod
    def of(cls, pid: int) -> Identity:
        """Raises ProcessLookupError when there is no such process."""
        stat = status_of(pid)
        if stat is None:
            raise ProcessLookupError(pid)
        return cls(pid, stat[1], _BOOT_ID.read_text(encoding="ascii").strip(), os.uname().nodename)

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine, so that one can tell whether it lives."""
        return self.host == os.uname().nodename

    @property
    def lives(self) -> bool:
        """Whether this very process still runs on this machine; a zombie does not."""
        stat = status_of(self.pid)
        return (
            stat is not None
            and stat[0] not in "ZX"
            and stat[1] == self.started
            and self.boot == _BOOT_ID.read_text(encoding="ascii").strip()
        )


def status_of(pid: int) -> tuple[str, int] | None:
    """The state letter and the start time in ticks, proc_pid_stat(5); None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return fields[0], int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP, a terminal or a debugger holds the process."""
    stat = status_of(pid)
    return stat is not None and stat[0] in "Tt"
