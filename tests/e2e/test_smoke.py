"""What four steps of the default recipe must show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import Run, run_recipe

pytestmark = pytest.mark.slow

METRICS = {
    "step", "reward/mean", "reward/std", "response/length", "rollout/tokens", "rollout/seconds",
    "train/seconds", "train/loss", "train/grad_norm", "train/entropy", "sync/seconds", "sync/bytes",
    "sleep/seconds", "wake/seconds", "step/seconds", "logprob/abs_diff_mean", "logprob/abs_diff_max",
    "memory/train_active_bytes", "memory/train_paused_bytes", "memory/rollout_active_bytes",
    "memory/rollout_paused_bytes", "memory/peak_bytes",
}  # fmt: skip


def test_every_step_reports_every_metric_of_the_contract(smoke_run: Run) -> None:
    assert [row["step"] for row in smoke_run.metrics] == [1, 2, 3, 4]
    for row in smoke_run.metrics:
        assert row.keys() >= METRICS


def test_trainer_and_engine_agree_on_logprobs_in_bf16(smoke_run: Run) -> None:
    assert max(row["logprob/abs_diff_mean"] for row in smoke_run.metrics) <= 0.02


def test_the_trainer_gives_its_memory_back_while_the_engine_generates(smoke_run: Run) -> None:
    for row in smoke_run.metrics:
        assert row["memory/train_paused_bytes"] <= 0.1 * row["memory/train_active_bytes"]


def test_the_engine_gives_its_memory_back_while_the_trainer_trains(smoke_run: Run) -> None:
    for row in smoke_run.metrics:
        assert row["memory/rollout_paused_bytes"] <= 0.2 * row["memory/rollout_active_bytes"]


def test_nothing_is_left_behind(smoke_run: Run) -> None:
    assert smoke_run.summary["ok"]
    assert processes_of(smoke_run.directory) == []
    assert not any(Path("/dev/shm").glob("*vime*"))


def test_everything_in_fp32_agrees_to_rounding(tmp_path: Path) -> None:
    run = run_recipe(tmp_path / "run", "--mode", "smoke", "--set", "model.dtype=float32")
    assert run.code == 0, run.output
    assert max(row["logprob/abs_diff_mean"] for row in run.metrics) <= 1e-4


def processes_of(run_dir: Path) -> list[int]:
    """Processes that still have a file of the run open or name it in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            files = [os.readlink(fd) for fd in (entry / "fd").iterdir()]
        except OSError:
            continue  # it ended while we looked
        if str(run_dir).encode() in command or any(name.startswith(str(run_dir)) for name in files):
            found.append(int(entry.name))
    return found
