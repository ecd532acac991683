"""A resumed run has the same metrics as an uninterrupted one, after a normal end and after SIGKILL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from harness.runs.recipe_run import VIMECTL, processes_of, resume_driver, run_recipe, stop_driver_in_phase

pytestmark = pytest.mark.slow

SETTINGS = [
    "--mode=smoke",
    "--set=model.dtype=float32",
    "--set=checkpoint.every=5",
    "--set=evaluation.every=5",
    "--set=evaluation.problems=16",
]


def length(steps: int) -> str:
    return f"--set=modes.smoke.steps={steps}"


def test_run_that_was_killed_and_resumed_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = run_recipe(tmp_path / "straight", *SETTINGS, length(6))
    assert straight.code == 0, straight.output
    expected = comparable(tmp_path / "straight")
    assert [row["step"] for row in expected] == list(range(1, 7))

    pieces = tmp_path / "pieces"
    kill_launcher_in_step(4, pieces)
    finished = comparable(pieces)
    assert finished == expected[: len(finished)]
    # The run keeps its last finished step, which may be the one in which it received the stop request.
    assert 3 <= len(finished) < 6
    assert newest_state(pieces) == f"step-{len(finished):06}"

    last = run_recipe(pieces, *SETTINGS, length(6), "--resume")
    assert last.code == 0, last.output
    assert comparable(pieces) == expected
    printed = [int(step) for step in re.findall(r"^step (\d+)/6  ", last.output, re.MULTILINE)]
    assert printed == [row["step"] for row in expected[len(finished) :]]
    assert last.left_in_shm == set()
    for key in ("steps", "reward_first", "reward_last", "evaluation_best", "best_step"):
        assert last.summary[key] == straight.summary[key]

    again = run_recipe(pieces, *SETTINGS, length(6), "--resume")
    assert (again.code, "nothing is left to do" in again.output) == (0, True)


def kill_launcher_in_step(step: int, run_dir: Path) -> None:
    """Start the run and kill its launcher in a rollout; return when all its processes have exited."""
    run = subprocess.Popen(
        [
            *VIMECTL,
            "run",
            "recipe",
            "qwen3-tiny-tp2",
            *SETTINGS,
            length(6),
            "--run-dir",
            run_dir,
            "--yes",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        driver = stop_driver_in_phase(run, run_dir, "rollout", "", step)
        os.kill(run.pid, signal.SIGKILL)
        resume_driver(driver)
        run.communicate(timeout=60)
    finally:
        run.kill()
    deadline = time.monotonic() + 30
    while processes_of(run_dir):
        assert time.monotonic() < deadline, processes_of(run_dir)
        time.sleep(0.1)


def comparable(run_dir: Path) -> list[dict[str, Any]]:
    """Return the metrics without times and memory, which differ between runs."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if not k.endswith("/seconds") and not k.startswith("memory/")}
        for row in rows
    ]


def newest_state(run_dir: Path) -> str:
    return sorted(path.parent.name for path in run_dir.glob("checkpoints/step-*/manifest.json"))[-1]
