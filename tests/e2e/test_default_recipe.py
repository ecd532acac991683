"""The default recipe: its metrics at every step, its reward at the end, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import pytest

from harness.runs.recipe_run import RecipeRun, processes_of, run_recipe
from harness.tolerances import LOGPROB_BF16_MEAN

METRICS = {
    "step", "reward/mean", "reward/std", "response/length", "rollout/tokens", "rollout/seconds",
    "train/seconds", "train/loss", "train/grad_norm", "train/entropy", "sync/seconds", "sync/bytes",
    "sleep/seconds", "wake/seconds", "step/seconds", "logprob/abs_diff_mean", "logprob/abs_diff_max",
    "memory/train_active_bytes", "memory/train_paused_bytes", "memory/rollout_active_bytes",
    "memory/rollout_paused_bytes", "memory/peak_bytes",
}  # fmt: skip

pytestmark = pytest.mark.slow


def test_every_step_has_every_metric(default_run: RecipeRun) -> None:
    assert [row["step"] for row in default_run.metrics] == list(range(1, 31))
    for row in default_run.metrics:
        assert row.keys() >= METRICS


def test_trainer_and_engine_agree_on_logprobs_in_bf16(default_run: RecipeRun) -> None:
    assert max(row["logprob/abs_diff_mean"] for row in default_run.metrics) <= LOGPROB_BF16_MEAN


def test_trainer_and_engine_are_offloaded_while_the_other_works(default_run: RecipeRun) -> None:
    for row in default_run.metrics:
        assert row["memory/train_paused_bytes"] <= 0.1 * row["memory/train_active_bytes"]
        assert row["memory/rollout_paused_bytes"] <= 0.2 * row["memory/rollout_active_bytes"]


def test_best_step_is_recorded_and_kept(default_run: RecipeRun) -> None:
    scores = {
        row["step"]: row["evaluation/score"] for row in default_run.metrics if "evaluation/score" in row
    }
    assert scores.keys() == {10, 20, 30}
    best = json.loads((default_run.directory / "checkpoints" / "best.json").read_text())
    assert best["score"] == max(scores.values()) > default_run.summary["evaluation_first"]
    assert (default_run.directory / best["path"] / "manifest.json").is_file()
    assert (default_run.directory / "checkpoints" / "best" / "model.safetensors").is_file()


def test_reward_rises(default_run: RecipeRun) -> None:
    assert gain(default_run) >= 0.25


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reward_rises_with_other_seeds(seed: int, tmp_path: Path) -> None:
    seeds = ["--set", f"prepare.settings.seed={seed}", "--set", f"algorithm.seed={seed}"]
    run = run_recipe(tmp_path / "run", *seeds)
    assert run.code == 0, run.output
    assert gain(run) >= 0.25


def gain(run: RecipeRun) -> float:
    """Return the mean reward of the last five steps minus that of the first five."""
    rewards = [row["reward/mean"] for row in run.metrics]
    return fmean(rewards[-5:]) - fmean(rewards[:5])


def test_nothing_is_left_behind(default_run: RecipeRun) -> None:
    assert default_run.summary["ok"]
    assert processes_of(default_run.directory) == []
    assert default_run.left_in_shm == set()
