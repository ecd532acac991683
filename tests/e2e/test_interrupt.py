"""After Ctrl-C in any phase nothing of the run is left, and the exit code is 130."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from harness.runs import shared_memory
from harness.runs.process_deaths import is_running
from harness.runs.recipe_run import START_LIMIT, VIMECTL, wait_for_phase

PHASES = [
    "starting Ray",
    "building the trainer",
    "building the engine",
    "rollout",
    "train",
    "sync",
]


# Two engines of one rank instead of one of two.
ONE_RANK = ["--set", "rollout.tensor_parallel=1"]


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("phase", "options"),
    [*((phase, []) for phase in PHASES), ("rollout", ONE_RANK)],
    ids=[*PHASES, "rollout of two engines"],
)
def test_nothing_is_left_after_ctrl_c(phase: str, options: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    before = shared_memory.list_files()
    run = subprocess.Popen(
        [*VIMECTL, "run", "recipe", "qwen3-tiny-tp2", "--run-dir", str(run_dir), "--yes", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for_phase(phase, run_dir / "events.jsonl", run)
        tree = psutil.Process(run.pid).children(recursive=True)
        os.killpg(run.pid, signal.SIGINT)
        output, _ = run.communicate(timeout=START_LIMIT)
    finally:
        run.kill()
    assert run.returncode == 130, output.decode()
    assert [process for process in tree if is_running(process)] == []
    assert shared_memory.left_files(before) == set()
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["ok"] is False
    # The last finished step is saved with any checkpoint.every; the interrupted step is not.
    kept = [path.name for path in (run_dir / "checkpoints").glob("step-*")]
    assert kept == ([f"step-{summary['steps']:06}"] if summary["steps"] else [])
    assert summary["steps"] > 0 or phase not in ("train", "sync")
