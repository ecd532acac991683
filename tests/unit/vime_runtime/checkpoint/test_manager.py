"""What is kept when, with a trainer that writes small files; the disk is real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.checkpoint.manager import CheckpointManager
from vime_runtime.checkpoint.store import StatePart, CheckpointStore
from vime_runtime.evaluation import SCORE
from vime_runtime.graceful_stop import StopRequest
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec import atomic_io
from vime_runtime.spec.errors import CheckpointFailed

from harness.run_config import make_run_config


class Trainer:
    """Writes as many bytes as it is told."""

    def __init__(self, size: int = 100) -> None:
        self.size = size

    def write_state(self, folder: str) -> list[StatePart]:
        path = Path(folder) / "rank-0-of-1.pt"
        return [StatePart({path.name: atomic_io.write_file(path, lambda f: f.write(bytes(self.size)))}, {})]

    def save_pretrained(self, directory: str) -> None:
        Path(directory).mkdir()
        (Path(directory) / "model.safetensors").write_bytes(bytes(self.size))


class Run:
    """A run directory, and steps that are nothing but their keeping."""

    def __init__(
        self, run_dir: Path, every: int = 0, keep: int = 2, scores: dict[int, float] | None = None
    ) -> None:
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        self.trainer = Trainer()
        self.stop = StopRequest()
        self.scores = scores or {}
        self.folder = run_dir / "checkpoints"
        self.journal = EventLog(run_dir, 9)
        config = make_run_config({"recipe": {"checkpoint": {"every": every, "keep": keep}}, "steps": 9})
        states = CheckpointStore(self.folder, "settings")
        state = states.newest(lambda message: pytest.fail(message))
        self.done = state.step if state else 0
        self.keeper = CheckpointManager(
            config, states, self.done, self.trainer, self.scores.__contains__, self.journal, self.stop
        )

    def step(self, step: int) -> dict[str, float]:
        row: dict[str, float] = {"step": step}
        self.keeper.write(step, row)
        if step in self.scores:
            row[SCORE] = self.scores[step]
        self.journal.metrics(row)
        self.keeper.publish(step, row)
        return row

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.folder.parent / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]


def test_the_last_k_are_kept_and_the_last_step_too(tmp_path: Path) -> None:
    run = Run(tmp_path, every=2)
    rows = [run.step(step) for step in range(1, 10)]
    assert run.left == ["step-000008", "step-000009"]
    assert ["checkpoint/seconds" in row for row in rows] == [False, True] * 4 + [True]
    assert [event["step"] for event in run.events("checkpoint")] == [2, 4, 6, 8, 9]
    assert run.events("checkpoint")[0]["path"] == "checkpoints/step-000002"
    assert run.events("checkpoint")[0]["bytes"] > 100


def test_nothing_is_written_unless_it_is_wanted(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step in range(1, 10):
        run.step(step)
    assert run.left == []


def test_the_best_step_stays_with_its_weights(tmp_path: Path) -> None:
    run = Run(tmp_path, every=3, keep=1, scores={2: 0.5, 4: 0.9, 6: 0.9, 8: 0.7})
    for step in range(1, 9):
        run.step(step)
    assert run.left == ["best", "best.json", "step-000004", "step-000006"]
    best = json.loads((run.folder / "best.json").read_text())
    assert best == {"step": 4, "score": 0.9, "path": "checkpoints/step-000004"}
    assert [(e["step"], e["best"]) for e in run.events("evaluation")] == [
        (2, True), (4, True), (6, False), (8, False),
    ]  # fmt: skip


def test_the_best_is_remembered_over_a_resume(tmp_path: Path) -> None:
    run = Run(tmp_path, every=1, scores={2: 0.5})
    for step in range(1, 5):
        run.step(step)
    again = Run(tmp_path, every=1, scores={5: 0.4})
    assert again.done == 4
    again.step(5)
    assert json.loads((again.folder / "best.json").read_text())["step"] == 2
    assert again.left == ["best", "best.json", "step-000002", "step-000004", "step-000005"]


def test_a_best_step_that_the_run_goes_back_before_is_forgotten(tmp_path: Path) -> None:
    run = Run(tmp_path, every=1, keep=9, scores={2: 0.5})
    for step in (1, 2):
        run.step(step)
    (run.folder / "step-000002").rename(tmp_path / "lost")
    again = Run(tmp_path, every=1, keep=9, scores={2: 0.4})
    assert again.done == 1
    again.step(2)
    assert json.loads((again.folder / "best.json").read_text())["score"] == 0.4


def test_at_a_request_to_stop_the_last_finished_step_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.step(1)
    woken: list[str] = []
    run.keeper.keep_finished(lambda: woken.append("trainer"))
    assert (run.left, woken) == (["step-000001"], ["trainer"])
    run.keeper.keep_finished(lambda: woken.append("again"))
    assert woken == ["trainer"]


def test_a_step_that_ends_after_the_request_is_kept_without_waking_anybody(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.stop.requested = True
    run.step(1)
    assert run.left == ["step-000001"]
    run.keeper.keep_finished(lambda: pytest.fail("the trainer has slept since"))


def test_nothing_is_kept_of_a_run_without_a_finished_step(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.keeper.keep_finished(lambda: pytest.fail("nothing to save"))
    assert run.left == []


@pytest.mark.parametrize("scores", [{}, {2: 0.5}], ids=["state", "state and weights"])
def test_a_full_disk_ends_the_run_and_the_state_before_stays(
    small_disk: Path, scores: dict[int, float]
) -> None:
    run = Run(small_disk, every=1, scores=scores)
    run.step(1)
    run.trainer.size = 5_000_000
    with pytest.raises(CheckpointFailed, match="No space left on device") as caught:
        run.step(2)
    assert caught.value.message.startswith("the training state of step 2 could not be written")
    assert caught.value.message.endswith("last good checkpoint: checkpoints/step-000001")
    assert run.left == ["step-000001"]
    assert Run(small_disk, every=1).done == 1
    run.trainer.size = 100
    run.step(2)
    assert "step-000002" in run.left


def test_what_a_killed_run_had_begun_is_cleared_away(tmp_path: Path) -> None:
    run = Run(tmp_path, every=2, scores={3: 0.5})
    run.step(2)
    run.keeper.write(3, {})
    assert run.left == ["best.candidate.partial", "step-000002", "step-000003.partial"]
    again = Run(tmp_path)
    assert (again.done, again.left) == (2, ["step-000002"])
