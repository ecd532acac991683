from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from vime_runtime.logging.tensorboard import TensorBoardWriter


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder)).Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def test_tensorboard_reads_back_the_metrics(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path / "tensorboard")
    writer.on_metrics({"step": 1, "reward/mean": 0.25, "sync/bytes": 6_000_000})
    writer.on_metrics({"step": 2, "reward/mean": 0.5, "train/loss": math.nan})
    # The writer is not closed yet: a run that is killed keeps its metrics.
    assert read(tmp_path / "tensorboard") == {
        "reward/mean": [(1, 0.25), (2, 0.5)],
        "sync/bytes": [(1, 6_000_000)],
    }
    writer.close()


def test_a_resumed_run_replaces_the_metrics_of_its_steps(tmp_path: Path) -> None:
    first = TensorBoardWriter(tmp_path)
    for step in range(1, 6):
        first.on_metrics({"step": step, "reward/mean": 0.0})
    first.close()
    resumed = TensorBoardWriter(tmp_path)
    for step in (4, 5, 6):
        resumed.on_metrics({"step": step, "reward/mean": 1.0})
    resumed.close()
    assert read(tmp_path)["reward/mean"] == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]
