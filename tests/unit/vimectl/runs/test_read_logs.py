from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError

from harness.runs.metric_rows import add_lines, metrics
from harness.runs.wait import wait_until
from vimectl.runs.read_logs import printable, process_log, progress
from vimectl.runs.run_directory import RunDirectory

VIMECTL = [sys.executable, "-m", "vimectl"]


def phase(name: str, step: int = 0, detail: str = "") -> dict[str, Any]:
    return {"kind": "phase", "phase": name, "step": step, "steps": 4, "detail": detail}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that was restarted after two steps, repeated the second and has no summary."""
    (tmp_path / "resolved.json").write_text("{}")
    (tmp_path / "logs" / "ray").mkdir(parents=True)
    add_lines(
        tmp_path / "events.jsonl",
        phase("start-up", detail="building the engine"),
        *(phase(name, step) for step in (1, 2, 3) for name in ("rollout", "train", "sync")),
        {"kind": "restart", "attempt": 1, "step": 2, "reason": "trainer rank 0 was killed"},
        phase("start-up", detail="building the engine"),
        *(phase(name, step) for step in (2, 3, 4) for name in ("rollout", "train", "sync")),
        {"kind": "warning", "message": "the disk is slow"},
        phase("save", 4),
    )
    add_lines(tmp_path / "metrics.jsonl", *map(metrics, (1, 2, 2, 3, 4)))
    return RunDirectory(tmp_path)


def test_progress_is_in_the_order_of_the_run(run: RunDirectory) -> None:
    lines = [line.partition("  ")[0] for line in progress(run, follow=False)]
    assert lines == [
        "start-up: building the engine", "step 1/4", "step 2/4",
        "restart 1: trainer rank 0 was killed",
        "start-up: building the engine", "step 2/4", "step 3/4",
        "warning: the disk is slow", "step 4/4", "save",
        "lost: the supervisor has exited and left no summary",
    ]  # fmt: skip


def test_progress_ends_with_the_result(run: RunDirectory) -> None:
    (run.path / "summary.json").write_text(json.dumps({"ok": True, "reason": "finished"}))
    assert list(progress(run, follow=True))[-1] == "ended: finished"


@pytest.mark.parametrize("name", ["trainer 0", "trainer-0", "trainer rank 0", "ray/raylet.out"])
def test_log_of_a_process_is_found_by_its_name(run: RunDirectory, name: str) -> None:
    for path in ("trainer-0.log", "ray/raylet.out"):
        (run.files.logs / path).write_bytes(b"one\n\xfftwo\nunfinished")
    assert list(process_log(run, name, follow=False)) == ["one", "\ufffdtwo", "unfinished"]


def test_unknown_process_is_an_error_with_the_known_ones(run: RunDirectory) -> None:
    (run.files.logs / "trainer-0.log").touch()
    with pytest.raises(UsageError, match=r"unknown process 'trainr'\. Did you mean trainer-0"):
        process_log(run, "trainr", follow=False)
    with pytest.raises(UsageError, match="unknown process"):
        process_log(run, "../resolved.json", follow=False)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[36m(EngineCore)\x1b[0m ready", "(EngineCore) ready"),
        ("a\x1b]0;title\x07b", "a\\x1b]0;title\\x07b"),
        ("\x1b[2J\x1b[1;1H", "\\x1b[2J\\x1b[1;1H"),
        ("\r 10%|#\r100%|##########\r", "100%|##########"),
        ("tab\tand ü", "tab     and ü"),
        ("\u202etxt", "\\u202etxt"),
    ],
)
def test_line_cannot_control_the_terminal(line: str, shown: str) -> None:
    assert printable(line) == shown


def test_follower_of_a_run_gets_lines_in_time_and_ends_with_the_run(launch: Callable[..., Any]) -> None:
    run = launch("--detach", "FAKE_STEP_SECONDS=0.3")
    run.wait()
    command = [*VIMECTL, "runs", "logs", "-f", str(run.run_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    seen = []
    states = []
    for line in process.stdout:
        seen.append(line.partition("  ")[0].strip())
        states.append(RunDirectory(run.run_dir).state)
    assert process.wait() == 0
    assert states[0] == "running"
    assert seen[-5:] == ["step 2/4", "step 3/4", "step 4/4", "save", "ended: finished"]


def test_interrupted_follower_leaves_the_run_alone(launch: Callable[..., Any]) -> None:
    run = launch("--detach", "FAKE_STEP_SECONDS=60")
    run.wait()
    run.pid("trainer rank")
    log = run.run_dir / "logs" / "driver.log"
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    command = [*VIMECTL, "runs", "logs", "-f", str(run.run_dir), "--process", "driver"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert "the runtime's own output" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert RunDirectory(run.run_dir).state == "running"
    os.kill(run.supervisor, signal.SIGTERM)
    wait_until(lambda: RunDirectory(run.run_dir).state == "interrupted")
