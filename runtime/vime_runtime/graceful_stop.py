"""Stop requests (SIGTERM): what may be lost is interrupted, the rest is finished first.

A request is raised as KeyboardInterrupt, the only exception of a signal handler that passes through a waiting
``ray.get``: Ray checks for signals about once a second, replaces SystemExit with another exception, and
swallows all others.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Receives stop requests, and defers them while the run must not stop."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def listen(self) -> None:
        """Handle SIGTERM from now on; call it again after a library has set its own handler."""
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Finish the block before the run stops. A second request interrupts it.

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
