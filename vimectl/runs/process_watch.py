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
from vime_runtime.spec.process_roles import process_name

# ioctl PIDFD_GET_INFO with the first version of struct pidfd_info, linux/pidfd.h: the first field is a mask,
# the last one the wait status. On return the mask says which fields are valid.
_INFO_SIZE = 64
_PIDFD_GET_INFO = (3 << 30) | (_INFO_SIZE << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3


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
        stat = process_stat(pid)
        if stat is None:
            raise ProcessLookupError(pid)
        return cls(pid, stat[1], boot_id(), os.uname().nodename)

    @property
    def is_local(self) -> bool:
        """True for a process of this machine, whose state can be read."""
        return self.host == os.uname().nodename

    @property
    def is_alive(self) -> bool:
        """True while this process runs on this machine; a zombie does not."""
        stat = process_stat(self.pid)
        same = stat is not None and stat[1] == self.started and self.boot == boot_id()
        return same and is_running(self.pid)

    def send_signal(self, signum: int) -> None:
        """Send a signal to this process. Raises ProcessLookupError if it has exited."""
        # Open the pidfd before the check: it never refers to a later process with the same id.
        fd = os.pidfd_open(self.pid)
        try:
            if self.is_alive:
                signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)


def process_stat(pid: int) -> tuple[str, int] | None:
    """Return the state letter and the start time in ticks, proc_pid_stat(5); None without such a process."""
    fields = _stat_fields(pid)
    return (fields[0], int(fields[19])) if fields else None


def is_running(pid: int) -> bool:
    """Return True for a process that has not exited; a zombie has."""
    stat = process_stat(pid)
    return stat is not None and stat[0] not in "ZX"


def is_stopped(pid: int) -> bool:
    """Return True if SIGSTOP, a terminal or a debugger has stopped the process."""
    stat = process_stat(pid)
    return stat is not None and stat[0] in "Tt"


class WatchedProcess:
    """A process of a run that is watched for its exit. ``entry`` is its ``process`` event."""

    def __init__(self, entry: dict[str, Any]) -> None:
        """Raises ProcessLookupError if the process has exited and was collected."""
        self.entry = entry
        self.pid: int = entry["pid"]
        self._fd = os.pidfd_open(self.pid)

    @property
    def role(self) -> str:
        """The role of the process, see ``vime_runtime.spec.process_roles``."""
        return str(self.entry["role"])

    def fileno(self) -> int:
        """Return the pidfd, for ``select.poll``."""
        return self._fd

    @property
    def has_exited(self) -> bool:
        """True once the process has exited."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def exit_signal(self) -> int | None:
        """The signal that killed the process; None if none did or the exit status is unknown."""
        status = self._wait_status()
        return os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None

    def describe_exit(self) -> str:
        """Return the name of the process and how it exited."""
        name, status = process_name(self.entry), self._wait_status()
        if status is None:
            return f"{name} died"
        if os.WIFSIGNALED(status):
            return f"{name} was killed by {signal_name(os.WTERMSIG(status))}"
        return f"{name} ended with exit code {os.WEXITSTATUS(status)} in the middle of the run"

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)

    def _wait_status(self) -> int | None:
        info = bytearray(_INFO_SIZE)
        struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, _PIDFD_GET_INFO, info)
            if struct.unpack_from("Q", info)[0] & _PIDFD_INFO_EXIT:
                return int(struct.unpack_from("i", info, _INFO_SIZE - 4)[0])
        fields = _stat_fields(self.pid)
        return int(fields[-1]) if fields and fields[0] == "Z" else None  # exit_code, proc_pid_stat(5)


class WatchedProcesses:
    """The processes of a run that are on this machine: ``all``, and those that are still ``running``."""

    def __init__(self, wake_up_on: int | None = None) -> None:
        """``wake_up_on`` is a descriptor that ends a ``wait`` when it becomes readable."""
        self.all: list[WatchedProcess] = []
        self.running: list[WatchedProcess] = []
        self._poll = select.poll()
        if wake_up_on is not None:
            self._poll.register(wake_up_on, select.POLLIN)

    def add(self, entry: dict[str, Any]) -> None:
        """Watch one more process. Raises ProcessLookupError if it has exited already."""
        process = WatchedProcess(entry)
        self.all.append(process)
        self.running.append(process)
        self._poll.register(process, select.POLLIN)

    def newly_exited(self) -> list[WatchedProcess]:
        """Return the processes that have exited since the last call."""
        exited = [process for process in self.running if process.has_exited]
        for process in exited:
            self.running.remove(process)
            self._poll.unregister(process)
        return exited

    def wait(self, seconds: float) -> None:
        """Wait for that time, or until a process exits."""
        self._poll.poll(seconds * 1000)

    def close(self) -> None:
        """Stop watching."""
        for process in self.all:
            process.close()


def signal_name(number: int) -> str:
    """Return the name of a signal: ``SIGKILL`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a realtime signal has no name
        return f"signal {number}"


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which may contain spaces; [] if it has exited."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()
