from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from vime_runtime.logging.trackers.background import BackgroundTracker
from vime_runtime.logging.trackers.tracked_run import RunTracker
from vime_runtime.spec.errors import UsageError


class Recorded(RunTracker):
    """A tracker that keeps its calls. It fails or waits at step 2 if it is told so."""

    def __init__(self, at_step_2: Callable[[], object] = lambda: None) -> None:
        self.calls: list[object] = []
        self._at_step_2 = at_step_2

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if step == 2:
            self._at_step_2()
        self.calls.append((step, metrics))

    def finish(self, done: bool) -> None:
        self.calls.append(done)


def run_steps(tracker: Recorded, done: bool = True, **timeouts: float) -> list[str]:
    """Log four steps and end; return the warnings."""
    warnings: list[str] = []
    callback = BackgroundTracker("wandb", lambda: tracker, warnings.append, **timeouts)
    for step in range(1, 5):
        callback.on_metrics({"step": step, "reward/mean": 0.5, "train/loss": float("nan")})
    callback.on_ending(done)
    return warnings


@pytest.mark.parametrize("done", [True, False])
def test_a_tracker_gets_finite_metrics_and_how_the_run_ended(done: bool) -> None:
    tracker = Recorded()
    assert run_steps(tracker, done) == []
    assert tracker.calls == [*((step, {"reward/mean": 0.5}) for step in range(1, 5)), done]


def test_a_tracker_that_raises_is_dropped_with_one_warning() -> None:
    tracker = Recorded(lambda: 1 / 0)
    (warning,) = run_steps(tracker)
    assert warning == (
        "the tracker wandb failed and gets no more metrics: ZeroDivisionError: division by zero"
    )
    assert tracker.calls == [(1, {"reward/mean": 0.5})]


def test_a_tracker_that_exits_does_not_end_the_run() -> None:
    def leave() -> None:
        raise SystemExit(3)

    assert run_steps(Recorded(leave)) == ["the tracker wandb failed and gets no more metrics: SystemExit: 3"]


def test_a_tracker_that_hangs_does_not_delay_steps_and_is_left_at_the_end() -> None:
    release = threading.Event()
    tracker = Recorded(release.wait)
    (warning,) = run_steps(tracker, finish_timeout=0.1)  # returns although step 2 waits
    release.set()
    assert warning == "the tracker wandb did not finish within 0.1 s; it may lack the last metrics"


def test_a_tracker_that_does_not_start_is_bad_input() -> None:
    with pytest.raises(UsageError, match="wandb cannot start: ZeroDivisionError") as caught:
        BackgroundTracker("wandb", lambda: 1 / 0, print)  # type: ignore[arg-type,return-value]
    assert "leave wandb out of watch.trackers" in caught.value.hint
    release = threading.Event()
    with pytest.raises(UsageError, match=r"wandb did not start within 0\.1 s"):
        BackgroundTracker("wandb", release.wait, print, start_timeout=0.1)  # type: ignore[arg-type]
    release.set()
