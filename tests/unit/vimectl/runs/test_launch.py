"""Launch and supervision of a fake runtime: real processes, real signals, real /dev/shm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.runs.wait import wait_until


def test_run_directory_and_summary_of_a_finished_run(launch: Callable[..., Any]) -> None:
    run = launch("SHADE=green")
    code, _, err = run.wait()
    assert code == 0, err
    assert {path.name for path in run.run_dir.iterdir()} == {
        "recipe.toml", "resolved.json", "environment.json", "doctor.json", "inputs.json", "launcher.json",
        "supervisor.json",
        "events.jsonl", "metrics.jsonl", "summary.json", "report.html", "logs", "checkpoints", "problems",
    }  # fmt: skip
    summary = run.summary
    assert summary["ok"] is True
    assert summary["steps"] == summary["steps_wanted"] == 4
    assert summary["skipped_prompts"] == {"train": 2}
    assert 0.3 < summary["reward_first"] == summary["reward_last"] < 0.5
    assert summary["peak_memory_bytes"] == 3 * 1024**3  # from the metrics of the fake runtime
    assert "the runtime's own output" in (run.run_dir / "logs" / "driver.log").read_text()
    assert "step 4/4  reward 0.4" in err
    assert not run.scratch_dir.exists()

    resolved = json.loads((run.run_dir / "resolved.json").read_text())
    assert resolved["schema"] == "vimectl.run/1"
    assert (resolved["mode"], resolved["steps"]) == ("smoke", 4)
    assert resolved["environment"]["driver"]["SHADE"] == "<secret>"
    assert Path(resolved["recipe"]["model"]["path"], "config.json").is_file()
    assert resolved["environment"]["rollout"]["TMPDIR"] == str(run.scratch_dir)


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_files_of_a_run_have_the_permissions_of_the_umask(launch: Callable[..., Any], umask: int) -> None:
    run = launch(wrapper=["sh", "-c", f'umask {umask:o} && exec "$@"', "sh"])
    code, _, err = run.wait()
    assert code == 0, err
    modes = {path: path.stat().st_mode for path in (run.run_dir, *run.run_dir.rglob("*"))}
    assert {run.run_dir / "report.html", run.run_dir / "logs" / "driver.log"} <= modes.keys()
    assert [str(path) for path, mode in modes.items() if mode & umask] == []


@pytest.mark.parametrize(
    ("signals", "step_seconds", "code"),
    [([signal.SIGINT], 60, 130), ([signal.SIGTERM, signal.SIGTERM], 60, 130), ([], 0.3, 0)],
)
def test_run_leaves_no_process_and_no_file(
    launch: Callable[..., Any],
    signals: list[signal.Signals],
    step_seconds: float,
    code: int,
    request: pytest.FixtureRequest,
) -> None:
    foreign_file = Path("/dev/shm") / f"foreign-{os.getpid()}"
    foreign_file.touch()
    request.addfinalizer(foreign_file.unlink)
    foreign = subprocess.Popen(["sleep", "60"])
    request.addfinalizer(foreign.kill)

    run = launch("FAKE_FAULT=hostile descendants", f"FAKE_STEP_SECONDS={step_seconds}")
    wait_until(lambda: run.run_dir.with_suffix(".scratch").exists())
    wait_until(lambda: len(list(run.scratch_dir.glob("*.pid"))) == 3)
    pids = [int(path.stem) for path in run.scratch_dir.glob("*.pid")]
    assert all(psutil.pid_exists(pid) for pid in pids)
    # Two files and a semaphore.
    files = [Path(line) for line in (run.scratch_dir / "shared_memory").read_text().splitlines()]
    assert len(files) == 3
    assert all(file.exists() for file in files)
    time.sleep(0.6)  # the supervisor has looked at /dev/shm

    for signum in signals:
        run.process.send_signal(signum)
        time.sleep(0.5)
    assert run.wait()[0] == code
    assert run.summary["reason"] == ("interrupted" if signals else "finished")
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not any(file.exists() for file in files)
    assert not run.scratch_dir.exists()
    assert foreign.poll() is None
    assert foreign_file.exists()
