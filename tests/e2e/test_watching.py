"""What can be watched of a real run: its page, a log for each process, TensorBoard files, whole rollouts."""

from __future__ import annotations

import json
import re
from statistics import fmean

import pytest

from harness.runs.recipe_run import Run

pytestmark = pytest.mark.slow


def test_the_page_is_made_without_being_asked_for(default_run: Run) -> None:
    page = (default_run.directory / "report.html").read_text()
    assert page.count("<figure") == 10
    assert re.findall(r"<h3>Step (\d+)", page) == ["1", "15", "30"]
    assert not (default_run.directory / "logs" / "report.log").exists()


def test_each_process_writes_its_own_log_and_marks_the_phases(default_run: Run) -> None:
    for name in ("driver", "trainer-0", "trainer-1", "engine-0", "engine-0-worker-0", "engine-0-worker-1"):
        text = (default_run.directory / "logs" / f"{name}.log").read_text()
        who = name.replace("-", " ")
        marked = re.findall(rf"^--- \d\d:\d\d:\d\d {who}: step (\d+) (\w+)$", text, re.MULTILINE)
        assert marked[:3] == [("1", "rollout"), ("1", "train"), ("1", "sync")], name
        assert ("30", "sync") in marked, name


def test_every_response_is_kept(default_run: Run) -> None:
    rollouts = [
        json.loads(line) for line in (default_run.directory / "rollouts.jsonl").read_text().splitlines()
    ]
    for row in default_run.metrics:
        kept = [rollout for rollout in rollouts if rollout["step"] == row["step"]]
        assert fmean(rollout["reward"] for rollout in kept) == pytest.approx(row["reward/mean"])
        assert sum(rollout["response_tokens"] for rollout in kept) == row["rollout/tokens"]


def test_tensorboard_reads_the_metrics(default_run: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(default_run.directory / "tensorboard")).Reload()
    rewards = [(event.step, event.value) for event in accumulator.Scalars("reward/mean")]
    assert rewards == [(row["step"], pytest.approx(row["reward/mean"])) for row in default_run.metrics]
