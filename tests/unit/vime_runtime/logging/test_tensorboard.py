from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from vime_runtime.logging.tensorboard import Board


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(folder)).Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def test_the_library_reads_back_what_was_written(tmp_path: Path) -> None:
    board = Board(tmp_path / "tensorboard")
    board.metrics({"step": 1, "reward/mean": 0.25, "sync/bytes": 6_000_000})
    board.metrics({"step": 2, "reward/mean": 0.5, "train/loss": math.nan})
    # Nothing is closed yet: a run that is killed leaves what it had.
    assert read(tmp_path / "tensorboard") == {
        "reward/mean": [(1, 0.25), (2, 0.5)],
        "sync/bytes": [(1, 6_000_000)],
    }
    board.close()


def test_steps_that_are_done_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    first = Board(tmp_path)
    for step in range(1, 6):
        first.metrics({"step": step, "reward/mean": 0.0})
    first.close()
    again = Board(tmp_path)
    for step in (4, 5, 6):
        again.metrics({"step": step, "reward/mean": 1.0})
    again.close()
    assert read(tmp_path)["reward/mean"] == [(1, 0), (2, 0), (3, 0), (4, 1), (5, 1), (6, 1)]
