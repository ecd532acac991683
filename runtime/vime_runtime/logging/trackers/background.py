"""Run a tracker in a thread: one that raises or hangs must not stop or delay the run."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from queue import SimpleQueue

from vime_runtime.logging.event_log import Callback
from vime_runtime.logging.trackers.tracked_run import RunTracker
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.metrics import STEP

# Seconds that a tracker gets to start. MLflow creates its database in up to 20 s on a busy machine.
START_TIMEOUT = 120.0
# Seconds that it gets to send what is left: at the end of a run, and of one that failed or was stopped, which
# the supervisor ends soon.
FINISH_TIMEOUT = 60.0
ABORT_TIMEOUT = 3.0


class BackgroundTracker(Callback):
    """Pass metrics to a tracker in its own thread. If it fails, warn once and drop it."""

    def __init__(
        self,
        name: str,
        start: Callable[[], RunTracker],
        warn: Callable[[str], None],
        start_timeout: float = START_TIMEOUT,
        finish_timeout: float = FINISH_TIMEOUT,
        abort_timeout: float = ABORT_TIMEOUT,
    ) -> None:
        """Start a tracker.

        Args:
            name: the tracker as the recipe spells it.
            start: makes the tracker; called in the thread.
            warn: called in this thread when the tracker fails.

        Raises:
            UsageError: it does not start.
        """
        self._name = name
        self._warn = warn
        self._timeouts = {True: finish_timeout, False: abort_timeout}
        # Steps wait here while the tracker is slow; a row is about a kilobyte.
        self._calls: SimpleQueue[Callable[[RunTracker], None] | None] = SimpleQueue()
        self._started = threading.Event()
        self._error: BaseException | None = None
        self._dropped = False
        self._thread = threading.Thread(target=self._work, args=(start,), name=f"tracker {name}", daemon=True)
        self._thread.start()
        hint = f"see docs/how-to/trackers.md, or leave {name} out of watch.trackers"
        if not self._started.wait(start_timeout):
            raise UsageError(f"watch.trackers: {name} did not start within {start_timeout:g} s", hint)
        if isinstance(self._error, UsageError):
            raise self._error
        if self._error is not None:
            raise UsageError(f"watch.trackers: {name} cannot start: {_text(self._error)}", hint)

    def on_metrics(self, row: dict[str, float]) -> None:
        """Hand the metrics of a step over, without those that are not finite."""
        if self._usable():
            metrics = {key: value for key, value in row.items() if key != STEP and math.isfinite(value)}
            self._calls.put(lambda tracker: tracker.log(int(row[STEP]), metrics))

    def on_ending(self, done: bool) -> None:
        """Let the tracker send what is left and say how the run ended, for a limited time."""
        if not self._usable():
            return
        self._calls.put(lambda tracker: tracker.finish(done))
        self._calls.put(None)
        timeout = self._timeouts[done]
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._drop(f"did not finish within {timeout:g} s; it may lack the last metrics")
        else:
            self._usable()

    def _usable(self) -> bool:
        if self._error is not None and not self._dropped:
            self._drop(f"failed and gets no more metrics: {_text(self._error)}")
        return not self._dropped

    def _drop(self, why: str) -> None:
        self._dropped = True
        self._warn(f"the tracker {self._name} {why}")

    def _work(self, start: Callable[[], RunTracker]) -> None:
        try:
            tracker = start()
            self._started.set()
            for call in iter(self._calls.get, None):
                call(tracker)
        except (Exception, SystemExit) as e:
            self._error = e
        finally:
            self._started.set()


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
