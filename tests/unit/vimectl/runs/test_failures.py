"""What a run comes to when one of its processes dies, stops or is stopped: real processes, real signals."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

LONG = "STANDIN_STEP_SECONDS=60"


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def assert_nothing_left(run: Any) -> None:
    assert not run.scratch_dir.exists()
    assert all(gone(event["pid"]) for event in run.events if event["kind"] == "process")
    assert not (run.run_dir / ".summary.json").exists()


@pytest.mark.parametrize(
    ("signum", "words"),
    [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGTERM, "was killed by SIGTERM")],
)
def test_a_process_that_dies_is_named(launch: Callable[..., Any], signum: int, words: str) -> None:
    run = launch(LONG)
    pid = run.pid("trainer rank")
    (run.run_dir / "checkpoints" / "step-000002").mkdir()
    (run.run_dir / "checkpoints" / "step-000002" / "manifest.json").touch()
    (run.run_dir / "checkpoints" / "step-000003.partial").mkdir()
    time.sleep(0.5)  # the supervisor has read of it
    os.kill(pid, signum)
    began = time.monotonic()
    code, out, _ = run.wait(15)
    assert time.monotonic() - began < 10
    assert code == 1
    assert run.summary["reason"] == f"trainer rank 0 (pid {pid}) {words}"
    assert run.summary["cause"] == {"role": "trainer rank", "rank": 0, "pid": pid}
    assert run.summary["last_checkpoint"] == "checkpoints/step-000002"
    assert run.summary["phase"] == "rollout"
    assert "the runtime's own output" in out
    assert_nothing_left(run)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("loss, then error", "was killed by SIGKILL"),
        ("loss that takes the driver along", "was killed by SIGKILL"),
        ("loss that is told before it comes", "ended with exit code 1 in the middle of the run"),
        ("error that takes its time", "a shape is odd"),
    ],
)
def test_cause_and_consequence_are_told_apart(launch: Callable[..., Any], fault: str, reason: str) -> None:
    run = launch(f"STANDIN={fault}")
    assert run.wait()[0] == 1
    assert run.summary["reason"].endswith(reason)


def test_a_gcs_that_closes_its_port_is_as_good_as_dead(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN=server that closes", LONG)
    pid = run.pid("GCS")
    time.sleep(3)
    os.kill(pid, signal.SIGTERM)
    assert run.wait(15)[0] == 1
    assert run.summary["reason"] == f"GCS (pid {pid}) stopped serving"
    assert_nothing_left(run)


def test_a_death_is_mended_by_a_restart(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN=loss", "cluster.restarts=1")
    code, _, err = run.wait()
    assert code == 0, err
    assert (run.summary["restarts"], run.summary["steps"]) == (1, 4)
    restart = next(event for event in run.events if event["kind"] == "restart")
    assert (restart["attempt"], restart["step"]) == (1, 0)
    assert restart["reason"].endswith("was killed by SIGKILL")
    assert f"restart 1: {restart['reason']}" in err
    assert_nothing_left(run)


def test_bad_input_is_not_tried_again(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN=error", "cluster.restarts=3")
    assert run.wait()[0] == 2
    assert run.summary["restarts"] == 0


def test_a_hang_ends_after_its_limit_and_says_where_everybody_was(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN=hang", "cluster.hang_timeout=2")
    pid = run.pid("trainer rank")
    assert run.wait()[0] == 1
    assert run.summary["reason"] == (
        f"no progress for 2 s in phase train; stopped: trainer rank 0 (pid {pid})"
    )
    assert run.summary["cause"] == {"role": "trainer rank", "rank": 0, "pid": pid}
    stacks = (run.run_dir / "logs" / "stacks.log").read_text()
    assert f"trainer rank 0 (pid {pid}), stopped" in stacks
    assert "main (vime_runtime/__main__.py" in stacks
    assert_nothing_left(run)


def test_work_that_is_done_counts_although_the_end_never_comes(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN=endless end")
    assert run.wait()[0] == 0
    assert run.summary["reason"] == "finished"


def test_a_run_that_does_not_stop_is_given_its_time_and_no_more(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN=deaf", LONG, "cluster.shutdown_timeout=1")
    run.pid("trainer rank")
    time.sleep(0.5)
    run.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert run.wait()[0] == 130
    assert 1 <= time.monotonic() - began < 5
    assert run.summary["reason"] == "interrupted"
    assert_nothing_left(run)


def test_the_supervisor_ends_the_run_of_a_launcher_that_was_killed(launch: Callable[..., Any]) -> None:
    run = launch(LONG, "cluster.restarts=1")
    driver = run.pid("runtime driver")
    run.process.kill()
    until(lambda: (run.run_dir / "summary.json").exists(), 15)
    assert run.summary["reason"] == f"launcher (pid {run.process.pid}) was killed"
    assert run.summary["exit_code"] == 1
    assert run.summary["restarts"] == 0
    until(lambda: gone(run.supervisor) and gone(driver), 5)
    assert_nothing_left(run)


def test_the_launcher_ends_the_run_of_a_supervisor_that_was_killed(launch: Callable[..., Any]) -> None:
    run = launch(LONG)
    run.pid("trainer rank")
    supervisor = run.supervisor
    os.kill(supervisor, signal.SIGKILL)
    assert run.wait(15)[0] == 1
    assert run.summary["reason"] == f"supervisor (pid {supervisor}) was killed by SIGKILL"
    assert run.summary["cause"] == {"role": "supervisor", "rank": 0, "pid": supervisor}
    assert_nothing_left(run)


def test_a_stopped_supervisor_counts_as_a_hang(launch: Callable[..., Any]) -> None:
    run = launch(LONG, "cluster.hang_timeout=2")
    run.pid("trainer rank")
    os.kill(run.supervisor, signal.SIGSTOP)
    assert run.wait(15)[0] == 1
    assert f"supervisor (pid {run.supervisor}) was stopped for 2 s" in run.summary["reason"]
    assert_nothing_left(run)


def test_ctrl_c_does_not_wait_for_a_stopped_supervisor(launch: Callable[..., Any]) -> None:
    run = launch(LONG)
    run.pid("trainer rank")
    os.kill(run.supervisor, signal.SIGSTOP)
    run.process.send_signal(signal.SIGINT)
    assert run.wait(5)[0] == 130
    assert run.summary["reason"] == "interrupted"
    assert_nothing_left(run)


def test_a_run_goes_on_while_its_launcher_is_stopped(launch: Callable[..., Any]) -> None:
    run = launch("STANDIN_STEP_SECONDS=0.2")
    run.pid("trainer rank")
    run.process.send_signal(signal.SIGSTOP)
    until(lambda: (run.run_dir / "summary.json").exists())
    assert run.summary["ok"]
    run.process.send_signal(signal.SIGCONT)
    assert run.wait(5)[0] == 0


def test_nothing_of_an_ended_run_is_taken_for_the_next_in_its_directory(tmp_path: Path) -> None:
    from vimectl.runs.run_log import Journal, append_event

    append_event(tmp_path, "process", role="raylet", rank=0, pid=1, node="here")
    append_event(tmp_path, "ending", done=False)
    append_event(tmp_path, "error", error={"message": "old"})
    append_event(tmp_path, "restart", attempt=0, step=0, reason="resumed")
    journal = Journal(tmp_path)
    journal.read()
    assert (journal.processes, journal.ending, journal.error) == ([], False, None)
