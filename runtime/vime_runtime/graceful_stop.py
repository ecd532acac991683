"""A request to stop, SIGTERM, as the loop meets it: what can be lost is broken off, the rest is finished.

The request unwinds the program as KeyboardInterrupt, the only exception from a signal handler that comes
through a waiting ``ray.get``: Ray looks for signals about once a second, makes an error of its own of
SystemExit, and swallows anything else.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether somebody wants the run to stop, and whether it may do so now."""

    def __init__(self) -> None:
        self.requested = False
        self._deferred = False

    def listen(self) -> None:
        """Take SIGTERM from now on; call again after a library has put a handler of its own there."""
        signal.signal(signal.SIGTERM, self._note)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """What happens inside is finished before the run stops. A second request does not wait for it.

        Raises:
            KeyboardInterrupt: at the end, when the run was asked to stop meanwhile.
        """
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.requested:
            raise KeyboardInterrupt

    def _note(self, signum: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if again or not self._deferred:
            raise KeyboardInterrupt
