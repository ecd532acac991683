"""Identify processes that are not children of this one, and notice when they exit.

A process id is reused after its process has exited, so a process is identified by its id, its start time and
the boot of its machine. A *pidfd* becomes readable when its process exits. The exit status is in /proc while
the process is a zombie; once another process has collected it, only the pidfd has it, from Linux 6.15 on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.boot_id import boot_id

# ioctl PIDFD_GET_INFO with the first version of struct pidfd_info, linux/pidfd.h: the first field is a mask,
# the last one the wait status. On return the mask says which fields are valid.
_INFO_SIZE = 64
_PIDFD_GET_INFO = (3 << 30) | (_INFO_SIZE << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3

# In the fields of proc_pid_stat(5) after the name: the start time, and the letters of the state, the first
# field; a zombie has exited. The last field is the wait status of a zombie.
_STARTED = 19
_STATES = {"T": "stopped", "t": "stopped", "D": "waiting", "Z": None, "X": None}


@dataclass(frozen=True)
class ProcessIdentity:
    """One process of one boot of one machine; ``started`` is in clock ticks since that boot."""

    pid: int
    started: int
    boot: str
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Return the identity of a process of this machine. Raises ProcessLookupError if there is none."""
        fields = _stat_fields(pid)
        if not fields:
            raise ProcessLookupError(pid)
        return cls(pid, int(fields[_STARTED]), boot_id(), os.uname().nodename)

    @property
    def is_local(self) -> bool:
        """True for a process of this machine, whose state can be read."""
        return self.host == os.uname().nodename

    @property
    def is_alive(self) -> bool:
        """True while this process runs on this machine; a zombie does not."""
        fields = _stat_fields(self.pid)
        same = bool(fields) and int(fields[_STARTED]) == self.started and self.boot == boot_id()
        return same and process_state(self.pid) is not None

    def send_signal(self, signum: int) -> None:
        """Send a signal to this process. Raises ProcessLookupError if it has exited."""
        # Open the pidfd before the check: it never refers to a later process with the same id.
        fd = os.pidfd_open(self.pid)
        try:
            if self.is_alive:
                signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)


def process_state(pid: int) -> str | None:
    """Return "running", "stopped" or "waiting" (it sleeps in the kernel); None if the process has exited."""
    fields = _stat_fields(pid)
    return _STATES.get(fields[0], "running") if fields else None


class WatchedProcess:
    """A process of a run that is watched for its exit. ``entry`` is its ``process`` event."""

    def __init__(self, entry: dict[str, Any]) -> None:
        """Raises ProcessLookupError if the process has exited and was collected."""
        self.entry = entry
        self.pid: int = entry["pid"]
        self.role = str(entry["role"])  # see ``vime_runtime.spec.process_roles``
        self._fd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """Return the pidfd, for ``select.select``."""
        return self._fd

    @property
    def has_exited(self) -> bool:
        """True once the process has exited."""
        return bool(select.select([self], [], [], 0)[0])

    @property
    def was_killed(self) -> bool:
        """True if a signal other than SIGTERM has killed the process, as far as that is known."""
        return (self.exit_code or 0) < 0 and self.exit_code != -signal.SIGTERM

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None if it is unknown."""
        info = bytearray(_INFO_SIZE)
        struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, _PIDFD_GET_INFO, info)
            if struct.unpack_from("Q", info)[0] & _PIDFD_INFO_EXIT:
                return os.waitstatus_to_exitcode(struct.unpack_from("i", info, _INFO_SIZE - 4)[0])
        fields = _stat_fields(self.pid)
        return os.waitstatus_to_exitcode(int(fields[-1])) if fields and fields[0] == "Z" else None


def exit_text(code: int) -> str:
    """Return how a process ended: ``was killed by SIGKILL`` for -9, ``ended with exit code 1``."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # a realtime signal has no name
        return f"was killed by signal {-code}"


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain spaces; [] if it has exited."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()
