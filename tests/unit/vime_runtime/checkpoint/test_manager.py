"""Tests with a trainer that writes small files to a real disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.checkpoint.manager import CheckpointManager
from vime_runtime.checkpoint.store import StatePart
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec import atomic_io
from vime_runtime.spec.errors import CheckpointFailed
from vime_runtime.spec.metrics import EVALUATION_SCORE

from harness.run_config import make_run_config


class FakeTrainer:
    """Writes files of ``size`` bytes."""

    def __init__(self, size: int = 100) -> None:
        self.size = size

    def write_state(self, folder: Path) -> list[StatePart]:
        path = folder / "rank-0-of-1.pt"
        return [StatePart({path.name: atomic_io.write_file(path, lambda f: f.write(bytes(self.size)))}, {})]

    def save_pretrained(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "model.safetensors").write_bytes(bytes(self.size))


class CheckpointedRun:
    """A run directory, and steps that only write checkpoints."""

    def __init__(
        self, run_dir: Path, every: int = 0, keep: int = 2, scores: dict[int, float] | None = None
    ) -> None:
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        self.trainer = FakeTrainer()
        self.stop = StopRequest()
        self.scores = scores or {}
        self.folder = run_dir / "checkpoints"
        self.log = EventLog(run_dir, 9)
        config = make_run_config(
            {"recipe": {"checkpoint": {"every": every, "keep": keep}}, "steps": 9, "run_dir": str(run_dir)}
        )
        self.manager: Any = CheckpointManager(config, self.log, self.stop)
        self.done = self.manager.done

    def step(self, step: int) -> dict[str, float]:
        row: dict[str, float] = {"step": step}
        self.manager.write(self.trainer, step, row, evaluated=step in self.scores)
        if step in self.scores:
            row[EVALUATION_SCORE] = self.scores[step]
        self.log.metrics(row)
        self.manager.publish(step, row)
        return row

    def steps(self, first: int, last: int) -> list[dict[str, float]]:
        return [self.step(step) for step in range(first, last + 1)]

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder.parent / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]


def test_the_last_states_and_that_of_the_last_step_are_kept(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path, every=2)
    rows = run.steps(1, 9)
    assert run.files == ["step-000008", "step-000009"]
    assert ["checkpoint/seconds" in row for row in rows] == [False, True] * 4 + [True]
    assert [event["step"] for event in run.events("checkpoint")] == [2, 4, 6, 8, 9]
    assert run.events("checkpoint")[0]["path"] == "checkpoints/step-000002"
    assert run.events("checkpoint")[0]["bytes"] > 100


def test_by_default_nothing_is_written(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path)
    run.steps(1, 9)
    assert run.files == []


def test_the_best_step_is_kept_with_its_weights(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path, every=3, keep=1, scores={2: 0.5, 4: 0.9, 6: 0.9, 8: 0.7})
    run.steps(1, 8)
    assert run.files == ["best", "best.json", "step-000004", "step-000006"]
    best = json.loads((run.folder / "best.json").read_text())
    assert best == {"step": 4, "score": 0.9, "path": "checkpoints/step-000004"}
    assert [(e["step"], e["best"]) for e in run.events("evaluation")] == [
        (2, True), (4, True), (6, False), (8, False),
    ]  # fmt: skip


def test_a_resumed_run_knows_the_best_step(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path, every=1, scores={2: 0.5})
    run.steps(1, 4)
    resumed = CheckpointedRun(tmp_path, every=1, scores={5: 0.4})
    assert resumed.done == 4
    resumed.step(5)
    assert json.loads((resumed.folder / "best.json").read_text())["step"] == 2
    assert resumed.files == ["best", "best.json", "step-000002", "step-000004", "step-000005"]


def test_resuming_from_before_the_best_step_forgets_it(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path, every=1, keep=9, scores={2: 0.5})
    run.steps(1, 2)
    (run.folder / "step-000002").rename(tmp_path / "lost")
    resumed = CheckpointedRun(tmp_path, every=1, keep=9, scores={2: 0.4})
    assert resumed.done == 1
    resumed.step(2)
    assert json.loads((resumed.folder / "best.json").read_text())["score"] == 0.4


def test_a_stop_request_saves_the_last_finished_step(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path)
    run.step(1)
    run.manager.save_finished(lambda: run.trainer)
    assert run.files == ["step-000001"]
    run.manager.save_finished(lambda: pytest.fail("it is saved already"))


def test_a_step_that_ends_after_the_request_is_saved_at_once(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path)
    run.stop.requested = True
    run.step(1)
    assert run.files == ["step-000001"]
    run.manager.save_finished(lambda: pytest.fail("it is saved already"))


def test_without_a_finished_step_nothing_is_saved(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path)
    run.manager.save_finished(lambda: pytest.fail("nothing to save"))
    assert run.files == []


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_states_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        CheckpointedRun(tmp_path, every=1).step(1)
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode for path in (tmp_path / "checkpoints").rglob("*")}
    assert {path.name for path in modes} >= {"rank-0-of-1.pt", "manifest.json"}
    assert [str(path) for path, mode in modes.items() if mode & umask] == []


@pytest.mark.parametrize("scores", [{}, {2: 0.5}], ids=["state", "state and weights"])
def test_a_full_disk_ends_the_run_and_earlier_states_stay(small_disk: Path, scores: dict[int, float]) -> None:
    run = CheckpointedRun(small_disk, every=1, scores=scores)
    run.step(1)
    run.trainer.size = 5_000_000
    with pytest.raises(CheckpointFailed, match="No space left on device") as caught:
        run.step(2)
    assert caught.value.message.startswith("the training state of step 2 could not be written")
    assert caught.value.message.endswith("last good checkpoint: checkpoints/step-000001")
    assert run.files == ["step-000001"]
    assert CheckpointedRun(small_disk, every=1).done == 1
    run.trainer.size = 100
    run.step(2)
    assert "step-000002" in run.files


def test_partial_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    run = CheckpointedRun(tmp_path, every=2, scores={3: 0.5})
    run.step(2)
    run.manager.write(run.trainer, 3, {}, evaluated=True)
    assert run.files == ["best.candidate.partial", "step-000002", "step-000003.partial"]
    resumed = CheckpointedRun(tmp_path)
    assert (resumed.done, resumed.files) == (2, ["step-000002"])
