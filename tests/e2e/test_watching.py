"""The outputs of a real run: report page, logs of processes, TensorBoard files, rollouts, answers."""

from __future__ import annotations

import json
import re
from statistics import fmean

import pytest
import torch

from harness.runs.recipe_run import RecipeRun
from harness.tolerances import relative

pytestmark = pytest.mark.slow


def test_page_is_made_at_the_end(default_run: RecipeRun) -> None:
    page = (default_run.directory / "report.html").read_text()
    assert page.count("<figure") == 11
    assert re.findall(r"<h3>Step (\d+)", page) == ["1", "15", "30"]
    assert "<h2>Evaluation answers</h2>" in page
    assert not (default_run.directory / "logs" / "report.log").exists()


def test_answers_of_every_evaluation_are_kept(default_run: RecipeRun) -> None:
    lines = (default_run.directory / "evaluations.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    assert {answer["set"] for answer in answers} == {"held-out"}
    scores = {
        row["step"]: row["evaluation/score"] for row in default_run.metrics if "evaluation/score" in row
    }
    assert {answer["step"] for answer in answers} == {0, *scores}
    for step, score in scores.items():
        rewards = [answer["reward"] for answer in answers if answer["step"] == step]
        assert fmean(rewards) == pytest.approx(score, rel=1e-9)


def test_each_process_has_a_log_with_phases(default_run: RecipeRun) -> None:
    for name in ("driver", "trainer-0", "trainer-1", "engine-0", "engine-0-worker-0", "engine-0-worker-1"):
        text = (default_run.directory / "logs" / f"{name}.log").read_text()
        process = name.replace("-", " ")
        phases = re.findall(rf"^--- \d\d:\d\d:\d\d {process}: step (\d+) (\w+)$", text, re.MULTILINE)
        assert phases[:4] == [("1", phase) for phase in ("rollout", "reward", "train", "sync")], name
        assert ("30", "sync") in phases, name


def test_rollouts_have_every_response(default_run: RecipeRun) -> None:
    rollouts = [
        json.loads(line) for line in (default_run.directory / "rollouts.jsonl").read_text().splitlines()
    ]
    for row in default_run.metrics:
        kept = [rollout for rollout in rollouts if rollout["step"] == row["step"]]
        assert fmean(rollout["reward"] for rollout in kept) == pytest.approx(row["reward/mean"], rel=1e-9)
        assert sum(rollout["response_tokens"] for rollout in kept) == row["rollout/tokens"]


def test_tensorboard_files_have_the_metrics(default_run: RecipeRun) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(default_run.directory / "trackers" / "tensorboard")).Reload()
    assert accumulator.Scalars("evaluation/score")[0].step == 0
    rewards = [(event.step, event.value) for event in accumulator.Scalars("reward/mean")]
    stored = relative(torch.float32, 1)  # TensorBoard keeps scalars in fp32
    assert rewards == [(r["step"], pytest.approx(r["reward/mean"], **stored)) for r in default_run.metrics]
