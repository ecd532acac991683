"""Notice that a process ended which is not our child, at once, and learn how.

A *pidfd* becomes readable when its process ends. How it ended is in /proc while it is a zombie, and after
somebody has collected it in the pidfd itself, from Linux 6.15 on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
from pathlib import Path

# ioctl PIDFD_GET_INFO with the first version of struct pidfd_info, linux/pidfd.h: a mask first, the wait
# status last. The mask says in return what was known.
_INFO_SIZE = 64
_PIDFD_GET_INFO = (3 << 30) | (_INFO_SIZE << 16) | (0xFF << 8) | 11
_PIDFD_INFO_EXIT = 1 << 3


class ProcessEnd:
    """The end of one process, awaited by its id. ``fileno`` is readable once it has come."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError when it has ended and was collected."""
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """For ``select.poll``."""
        return self._fd

    def has_come(self) -> bool:
        """Whether the process has ended."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self) -> int | None:
        """The signal that killed it; None when none did or it cannot be known."""
        status = self._status()
        return os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else None

    def words(self) -> str:
        """How it ended, to follow its name."""
        status = self._status()
        if status is None:
            return "died"
        if os.WIFSIGNALED(status):
            return f"was killed by {signal_name(os.WTERMSIG(status))}"
        return f"ended with exit code {os.WEXITSTATUS(status)} in the middle of the run"

    def close(self) -> None:
        """Await it no longer."""
        os.close(self._fd)

    def _status(self) -> int | None:
        info = bytearray(_INFO_SIZE)
        struct.pack_into("Q", info, 0, _PIDFD_INFO_EXIT)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, _PIDFD_GET_INFO, info)
            if struct.unpack_from("Q", info)[0] & _PIDFD_INFO_EXIT:
                return int(struct.unpack_from("i", info, _INFO_SIZE - 4)[0])
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{self.pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            if fields[0] == "Z":
                return int(fields[-1])  # exit_code, proc_pid_stat(5)
        return None


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a realtime signal has no name
        return f"signal {number}"
