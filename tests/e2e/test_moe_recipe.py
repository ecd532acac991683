"""The recipe with a mixture of experts as it is shipped; test_own_model.py runs it with another model."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runs.recipe_run import RecipeRun, processes_of, run_recipe
from harness.tolerances import LOGPROB_BF16_MEAN, LOGPROB_FP32

STEPS = 4

pytestmark = pytest.mark.exhaustive


def run_moe(directory: Path, *arguments: str) -> RecipeRun:
    run = run_recipe(directory, "--mode=smoke", *arguments, recipe="qwen3-moe-tiny-tp2")
    assert run.code == 0, run.output
    return run


def test_trainer_and_engine_agree_on_logprobs_in_bf16(tmp_path: Path) -> None:
    run = run_moe(tmp_path / "run")
    assert [row["step"] for row in run.metrics] == list(range(1, STEPS + 1))
    assert max(row["logprob/abs_diff_mean"] for row in run.metrics) <= LOGPROB_BF16_MEAN
    for row in run.metrics:
        assert row["memory/train_paused_bytes"] <= 0.1 * row["memory/train_active_bytes"]
        assert row["memory/rollout_paused_bytes"] <= 0.2 * row["memory/rollout_active_bytes"]
    assert run.summary["ok"]
    assert processes_of(run.directory) == []
    assert run.left_in_shm == set()


def test_logprobs_in_fp32_differ_by_rounding_only_also_after_a_resume(tmp_path: Path) -> None:
    exact = ("--set=model.dtype=float32", "--set=checkpoint.every=2")
    run_moe(tmp_path / "run", *exact, "--set=modes.smoke.steps=2")
    run = run_moe(tmp_path / "run", *exact, "--resume")
    assert [row["step"] for row in run.metrics] == list(range(1, STEPS + 1))
    assert max(row["logprob/abs_diff_mean"] for row in run.metrics) <= LOGPROB_FP32
