"""A detached run outlives the terminal that launched it. Then one of its processes dies."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from harness.runs.wait import wait_until
from harness.terminal import read_until
from vimectl.doctor.facts.processes import read_processes, read_scratch_directories
from vimectl.runs.process_watch import process_state
from vimectl.runs.run_directory import RunDirectory, stop_run
from vimectl.util.host import Host

LONG = "FAKE_STEP_SECONDS=60"
# About four seconds for the four steps of a run.
SHORT = "FAKE_STEP_SECONDS=0.3"


def state(run: Any) -> str:
    return RunDirectory(run.run_dir).state


def processes(run: Any) -> list[int]:
    """Every process of the run that lives, the launcher too."""
    entries = RunDirectory(run.run_dir).processes()
    return [entry["pid"] for entry in entries if process_state(entry["pid"])]


def assert_nothing_left(run: Any) -> None:
    wait_until(lambda: not processes(run))
    assert not run.scratch_dir.exists()
    assert [one.pid for one in read_processes(Host()) if one.scratch == str(run.scratch_dir)] == []


def test_command_returns_once_the_run_has_started_and_can_be_stopped(launch: Callable[..., Any]) -> None:
    run = launch("--detach", LONG)
    code, _, err = run.wait()
    assert code == 0, err
    assert state(run) == "running"
    run.pid("trainer rank")
    # Neither is in the session of the command, nor has any of its files open.
    for pid in (run.launcher, run.supervisor):
        assert os.getsid(pid) != os.getsid(0)
        assert psutil.Process(pid).terminal() is None
    assert stop_run(RunDirectory(run.run_dir)).state == "interrupted"
    assert_nothing_left(run)


def test_lost_terminal_does_not_end_the_run(launch: Callable[..., Any]) -> None:
    """As when a connection of SSH breaks: the kernel sends SIGHUP to the session of the terminal."""
    master, slave = pty.openpty()
    run = launch("--detach", SHORT, terminal=slave)
    os.close(slave)
    output = read_until(master, "returned")
    assert state(run) == "running", output
    os.close(master)
    assert run.process.wait(timeout=60) == -signal.SIGHUP
    wait_until(lambda: state(run) != "running")
    assert run.summary["reason"] == "finished"
    assert_nothing_left(run)


def test_lost_launcher_does_not_end_the_run(launch: Callable[..., Any]) -> None:
    run = launch("--detach", SHORT)
    run.wait()
    os.kill(run.launcher, signal.SIGKILL)
    wait_until(lambda: state(run) != "running")
    assert run.summary["reason"] == "finished"
    assert_nothing_left(run)


def test_lost_supervisor_is_named_and_leaves_nothing(launch: Callable[..., Any]) -> None:
    run = launch("--detach", LONG)
    run.wait()
    run.pid("trainer rank")
    supervisor = run.supervisor
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: state(run) != "running")
    assert run.summary["reason"] == f"supervisor (pid {supervisor}) was killed by SIGKILL"
    assert_nothing_left(run)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name)
def test_stop_request_to_the_launcher_stops_the_run(launch: Callable[..., Any], signum: int) -> None:
    run = launch("--detach", LONG)
    run.wait()
    run.pid("trainer rank")
    os.kill(run.launcher, signum)
    wait_until(lambda: state(run) != "running")
    assert run.summary["reason"] == "interrupted"
    assert_nothing_left(run)


def test_runtime_ends_with_launcher_and_supervisor_and_the_doctor_names_the_rest(
    launch: Callable[..., Any],
) -> None:
    run = launch("--detach", LONG)
    run.wait()
    run.pid("trainer rank")
    launcher, supervisor = run.launcher, run.supervisor
    os.kill(launcher, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not processes(run))
    assert state(run) == "lost"
    found = {one.path: one.state for one in read_scratch_directories(Host())}
    assert found[str(run.scratch_dir)] == "ended"
    subprocess.run(["rm", "-r", str(run.scratch_dir)], check=True)  # what the doctor says
    assert_nothing_left(run)
