from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from vime_runtime.logging.trackers.tensorboard import TensorBoardTracker
from vime_runtime.logging.trackers.tracked_run import TrackedRun


def start(folder: Path) -> TensorBoardTracker:
    return TensorBoardTracker(TrackedRun("run", "project", folder, {}))


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder)).Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_back_the_metrics(tmp_path: Path) -> None:
    tracker = start(tmp_path)
    tracker.log(1, {"reward/mean": 0.25, "sync/bytes": 6_000_000})
    tracker.log(2, {"reward/mean": 0.5})
    # It is not finished yet: a run that is killed keeps its metrics.
    assert read(tmp_path) == {"reward/mean": [(1, 0.25), (2, 0.5)], "sync/bytes": [(1, 6_000_000)]}
    tracker.finish(True)


def test_a_resumed_run_replaces_the_metrics_of_its_steps(tmp_path: Path) -> None:
    for steps, value in ((range(1, 6), 0.0), (range(4, 7), 1.0)):
        tracker = start(tmp_path)
        for step in steps:
            tracker.log(step, {"reward/mean": value})
        tracker.finish(True)
    assert read(tmp_path)["reward/mean"] == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]
