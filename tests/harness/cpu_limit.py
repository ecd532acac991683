"""Limit the CPU time of a computation."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def cpu_limit(seconds: float = 60) -> Iterator[None]:
    """Raise TimeoutError in a block that takes more CPU time than this; only in the main thread.

    The limit is far above what the block needs, so only an endless or quadratic loop exceeds it.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {seconds:g} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
