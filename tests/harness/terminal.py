"""A shell in a pseudo-terminal. Its end sends SIGHUP to the session, as the end of an SSH connection does."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import termios
from collections.abc import Mapping, Sequence


def start_shell(
    terminal: int, command: Sequence[str | os.PathLike[str]], environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a shell in a new session with this terminal. It runs the command, prints "returned" and waits."""
    return subprocess.Popen(
        ["sh", "-c", '"$@"; echo returned; sleep 600', "sh", *command],
        env=environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored below nohup


def read_until(terminal: int, text: str) -> str:
    """Return what has been written to the terminal, whose other end this is, up to a text and beyond."""
    output = b""
    while text.encode() not in output:
        output += os.read(terminal, 1000)
    return output.decode(errors="replace")
