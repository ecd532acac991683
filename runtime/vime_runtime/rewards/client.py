"""The driver's end of one reward process."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vime_runtime.rewards import isolation
from vime_runtime.rewards.process import END, END_WITH_STACK

# A longer line of a process is damaged: it never stops, or is forged.
MAX_LINE = 65_536
_CHUNK = 65_536
# The last output of a process may have a stack.
_TAIL = 8192


class DamagedReply(Exception):
    """A process sent something else than the reply that it should."""


class Disconnected(Exception):
    """A process has closed its connection, normally because it has exited."""


class RewardProcess:
    """One process: start it, exchange messages without blocking, end it.

    Attributes:
        socket, output, exit: file descriptors to wait for: replies, what it prints, and its exit.
    """

    def __init__(self, env: Mapping[str, str], scratch_dir: Path, isolated: bool) -> None:
        """Start the process. Raises OSError.

        Args:
            env: variables in addition to those that are inherited.
            scratch_dir: where its temporary folder is made.
        """
        inherited = isolation.inherited_environment(os.environ) if isolated else dict(os.environ)
        self._folder = folder = tempfile.mkdtemp(prefix="reward-", dir=scratch_dir)
        self.socket, theirs = socket.socketpair()
        self.output, output = os.pipe()
        with theirs:
            self._popen = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "vime_runtime.rewards.process",
                    str(theirs.fileno()),
                    folder,
                    "isolated" if isolated else "open",
                    str(os.getpid()),
                ],
                env={**inherited, "OMP_NUM_THREADS": "1", **env, "TMPDIR": folder},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the driver
            )
        os.close(output)
        self.exit = os.pidfd_open(self._popen.pid)
        self.socket.setblocking(False)
        os.set_blocking(self.output, False)
        self._unsent = b""
        self._received = b""
        self._printed = b""

    @property
    def events(self) -> int:
        """The events of the socket to wait for."""
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message, or as much of it as is possible now; ``flush`` sends the rest."""
        # Rows of a table may have dates and other objects.
        self._unsent += json.dumps(message, default=str).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        """Send more of what could not be sent before."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def receive(self) -> Iterator[dict[str, Any]]:
        """Yield the messages that have arrived; those before a damaged one count.

        Raises:
            DamagedReply, Disconnected
        """
        try:
            chunk = self.socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise Disconnected
        *lines, self._received = (self._received + chunk).split(b"\n")
        for line in lines:
            yield _parsed(line)
        if len(self._received) > MAX_LINE:
            raise DamagedReply

    def read_output(self) -> bytes:
        """Return what the process has printed since the last call; empty at the end."""
        try:
            chunk = os.read(self.output, _CHUNK)
        except BlockingIOError:
            return b""
        self._printed = (self._printed + chunk)[-_TAIL:]
        return chunk

    @property
    def last_output(self) -> str:
        """The end of what the process has printed."""
        return self._printed.decode(errors="replace")

    def end(self, with_stack: bool = False) -> None:
        """Tell the guard to end everything; returns at once."""
        self._popen.send_signal(END_WITH_STACK if with_stack else END)

    def kill(self) -> None:
        """Kill the guard, if it does not end. The kernel then kills the worker."""
        self._popen.kill()

    def close(self) -> str:
        """Close the connection to a process that has exited; return how it has exited."""
        code = self._popen.wait()
        self.socket.close()
        os.close(self.output)
        os.close(self.exit)
        shutil.rmtree(self._folder, ignore_errors=True)  # the guard has done it, unless it was killed
        if code >= 0:
            return f"the reward process exited with code {code}"
        try:
            return f"the reward process was killed by {signal.Signals(-code).name}"
        except ValueError:  # a real-time signal without a name
            return f"the reward process was killed by signal {-code}"


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        raise DamagedReply from None
    if not isinstance(message, dict):
        raise DamagedReply
    return message
