"""Stop requests (SIGTERM): interrupt a rollout, but finish a step whose rollout is complete.

The handler raises KeyboardInterrupt, the only exception of a signal handler that passes through a waiting
``ray.get``: Ray checks for signals about once a second, replaces SystemExit with another exception, and
swallows all others.
"""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def signal_when_parent_exits(signum: int) -> None:
    """Let the kernel send this process a signal when its parent has exited, even by SIGKILL."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)


class StopRequest:
    """Receive stop requests, and defer them while the run must not be interrupted."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def listen(self) -> None:
        """Handle SIGTERM from now on; call it again after a library has set its own handler."""
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer a stop request to the end of the block. A second request interrupts the block.

        Raises:
            KeyboardInterrupt: at the end, if the run received a stop request.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.requested:
            raise KeyboardInterrupt

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if again or not self._deferred:
            raise KeyboardInterrupt
