"""A detached run continues without the terminal that launched it, and leaves nothing when it is stopped."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from harness import terminal
from harness.runs import shared_memory
from harness.runs.recipe_run import START_LIMIT, VIMECTL, processes_of
from harness.runs.wait import wait_until
from vimectl.runs.run_directory import RunDirectory


@pytest.mark.slow
def test_detached_run_outlives_its_terminal_and_can_be_stopped(tmp_path: Path) -> None:
    before = shared_memory.list_files()
    run_dir = tmp_path / "run"
    master, slave = pty.openpty()
    command = [*VIMECTL, "run", "recipe", "qwen3-tiny-tp2", "--mode=long", f"--run-dir={run_dir}", "--detach"]
    shell = terminal.start_shell(slave, [*command, "--yes"])
    os.close(slave)
    try:
        output = terminal.read_until(master, "returned")
        assert "follow" in output, output
        os.close(master)  # the kernel sends SIGHUP to the session
        assert shell.wait(60) == -signal.SIGHUP
        run = RunDirectory(run_dir)
        wait_until(lambda: RunDirectory(run_dir).log.rows or run.state != "running", START_LIMIT)
        assert run.state == "running", run.summary
        pids = [entry["pid"] for entry in run.processes()]
        assert all(psutil.Process(pid).terminal() is None for pid in pids)
        stopped = subprocess.run(
            [*VIMECTL, "runs", "stop", str(run_dir), "--json"], capture_output=True, text=True
        )
        assert json.loads(stopped.stdout)["state"] == "interrupted", stopped
    finally:
        subprocess.run([*VIMECTL, "runs", "stop", str(run_dir)], capture_output=True)
        shell.kill()
        shell.wait()
    wait_until(lambda: not any(map(psutil.pid_exists, pids)), 30)  # the launcher exits last
    assert processes_of(run_dir) == []
    assert shared_memory.left_files(before) == set()
    assert not Path(run.document["scratch_dir"]).exists()
    # The last finished step is saved.
    steps = RunDirectory(run_dir).log.rows[-1]["step"]
    assert RunDirectory(run_dir).last_checkpoint == f"checkpoints/step-{steps:06.0f}"
