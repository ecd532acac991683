"""How a run ends when one of its processes dies, hangs or gets a signal: real processes, real signals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.runs.metric_rows import add_lines
from harness.runs.wait import wait_until
from vimectl.runs.failures import FailureMonitor
from vimectl.runs.run_log import RunLog
from vimectl.runs.summary import table_rows

LONG = "FAKE_STEP_SECONDS=60"


def has_exited(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def assert_nothing_left(run: Any) -> None:
    assert not run.scratch_dir.exists()
    assert all(has_exited(event["pid"]) for event in run.events if event["kind"] == "process")
    assert not (run.run_dir / ".summary.json").exists()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM], ids=lambda signum: signum.name)
def test_lost_process_is_named(launch: Callable[..., Any], signum: signal.Signals) -> None:
    run = launch(LONG)
    pid = run.pid("trainer rank")
    (run.run_dir / "checkpoints" / "step-000002").mkdir()
    (run.run_dir / "checkpoints" / "step-000002" / "manifest.json").touch()
    (run.run_dir / "checkpoints" / "step-000003.partial").mkdir()
    time.sleep(0.5)  # the supervisor has read the event
    os.kill(pid, signum)
    code, out, _ = run.wait()
    assert code == 1
    assert run.summary["reason"] == f"trainer rank 0 (pid {pid}) was killed by {signum.name}"
    assert run.summary["cause"] == {"role": "trainer rank", "rank": 0, "pid": pid}
    assert run.summary["last_checkpoint"] == "checkpoints/step-000002"
    assert run.summary["phase"] == "rollout"
    assert "the runtime's own output" in out
    assert_nothing_left(run)


LOST = r"trainer rank 0 \(pid \d+\) was killed by SIGKILL"
MEMORY_SAVER = (
    r"trainer rank 0 \(pid \d+\) ended with exit code 1 in the middle of the run: "
    "torch_memory_saver ended it: aclrtMallocPhysical failed"
)


@pytest.mark.parametrize(
    ("fault", "code", "reason", "shown"),
    [
        ("usage error", 2, "the label is odd", "fix the label"),
        ("crash", 1, "the runtime ended with exit code 1 without an error message", "something broke"),
        ("driver killed", 1, r"runtime driver \(pid \d+\) was killed by SIGKILL", "logs/driver.log"),
        ("lost process, then error", 1, LOST, ""),
        ("lost process ends driver", 1, LOST, ""),
        ("loss reported before the exit", 1, r".* ended with exit code 1 in the middle of the run", ""),
        ("memory saver ends rank", 1, MEMORY_SAVER, "`npu-smi info` lists them"),
        ("error with slow shutdown", 1, "a shape is odd", ""),
    ],
)
def test_cause_is_named_and_not_confused_with_consequences(
    launch: Callable[..., Any], fault: str, code: int, reason: str, shown: str
) -> None:
    run = launch(f"FAKE_FAULT={fault}", f"cluster.restarts={3 if fault == 'usage error' else 0}")
    found, out, _ = run.wait()
    assert found == code
    assert run.summary["ok"] is False
    assert re.fullmatch(reason, run.summary["reason"])
    assert run.summary["restarts"] == 0
    assert shown in out


def test_summary_of_an_error_says_what_where_and_what_to_do(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_FAULT=explained error", "cluster.restarts=1")
    code, out, _ = run.wait()
    assert code == 1
    assert run.summary["restarts"] == 0
    rows = table_rows(run.summary, run.run_dir, None)
    assert [row for row in rows if row[0] in ("result", "where", "hint")] == [
        ["result", "KeyError: 'x'"],
        ["where", "/home/me/reward.py:3 in score"],
        ["hint", f"read {run.run_dir}/logs/driver.log"],
    ]
    assert run.summary["excerpt"] in out
    assert run.summary["excerpt"].endswith("KeyError: 'x'")


@pytest.mark.parametrize("replaced", [False, True])
def test_run_whose_directory_is_removed_fails(launch: Callable[..., Any], replaced: bool) -> None:
    run = launch("FAKE_STEP_SECONDS=0.5")
    driver, scratch = run.pid("runtime driver"), run.scratch_dir
    run.run_dir.rename(run.run_dir.with_name("moved"))
    if replaced:
        run.run_dir.mkdir()
    code, out, _ = run.wait()
    assert code == 1
    assert f"the run directory {run.run_dir} was removed or renamed during the run" in out
    assert has_exited(driver)
    assert not scratch.exists()
    assert not (run.run_dir / "summary.json").exists()  # the directory may be of another run


@pytest.mark.needs("root")
def test_full_shared_memory_is_named(launch: Callable[..., Any]) -> None:
    small = 'mount -t tmpfs -o size=16m tmpfs /dev/shm && touch /dev/shm/other && exec "$@"'
    run = launch("FAKE_FAULT=shared memory is full", wrapper=["unshare", "--mount", "sh", "-c", small, "sh"])
    code, out, _ = run.wait()
    assert code == 1, out
    reason, pid = run.summary["reason"], run.summary["cause"]["pid"]
    used = rf"16 MiB of 16 MiB used by /dev/shm/fake-runtime-{pid}-fill \(16 MiB, root\)"
    end = rf"the run needs 256 MiB; engine 0 \(pid {pid}\) could not write to it"
    assert re.fullmatch(f"/dev/shm is full: {used}; {end}", reason), reason
    assert "--shm-size" in run.summary["hint"]


def test_gcs_that_closes_its_port_is_a_failure(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_FAULT=GCS closes its port", LONG)
    pid = run.pid("GCS")
    time.sleep(3)
    os.kill(pid, signal.SIGTERM)
    assert run.wait()[0] == 1
    assert run.summary["reason"] == f"GCS (pid {pid}) stopped serving"
    assert_nothing_left(run)


def test_restart_after_a_lost_process(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_FAULT=lost process, once", "cluster.restarts=1")
    code, _, err = run.wait()
    assert code == 0, err
    assert (run.summary["restarts"], run.summary["steps"]) == (1, 4)
    restart = next(event for event in run.events if event["kind"] == "restart")
    assert (restart["attempt"], restart["step"]) == (1, 0)
    assert restart["reason"].endswith("was killed by SIGKILL")
    assert f"restart 1: {restart['reason']}" in err
    assert_nothing_left(run)


def test_hang_ends_after_its_timeout_with_a_stack_dump(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_FAULT=hang", "cluster.hang_timeout=2")
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


def test_finished_run_succeeds_although_it_does_not_shut_down(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_FAULT=endless shutdown")
    assert run.wait()[0] == 0
    assert run.summary["reason"] == "finished"


def test_shutdown_timeout_is_respected(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_FAULT=ignores SIGTERM", LONG, "cluster.shutdown_timeout=1")
    run.pid("trainer rank")
    time.sleep(0.5)
    run.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert run.wait()[0] == 130
    assert time.monotonic() - began >= 1  # killed after its time, not before; a busy machine only adds to it
    assert run.summary["reason"] == "interrupted"
    assert_nothing_left(run)


def test_supervisor_ends_the_run_of_a_killed_launcher(launch: Callable[..., Any]) -> None:
    run = launch(LONG, "cluster.restarts=1")
    driver = run.pid("runtime driver")
    run.process.kill()
    wait_until(lambda: (run.run_dir / "summary.json").exists())
    assert run.summary["reason"] == f"launcher (pid {run.process.pid}) was killed"
    assert run.summary["exit_code"] == 1
    assert run.summary["restarts"] == 0
    wait_until(lambda: has_exited(run.supervisor) and has_exited(driver))
    assert_nothing_left(run)


def test_launcher_ends_the_run_of_a_killed_supervisor(launch: Callable[..., Any]) -> None:
    run = launch(LONG)
    run.pid("trainer rank")
    supervisor = run.supervisor
    os.kill(supervisor, signal.SIGKILL)
    assert run.wait()[0] == 1
    assert run.summary["reason"] == f"supervisor (pid {supervisor}) was killed by SIGKILL"
    assert run.summary["cause"] == {"role": "supervisor", "rank": 0, "pid": supervisor}
    assert_nothing_left(run)


@pytest.mark.parametrize(
    ("interrupt", "hang_timeout", "code", "reason"),
    [
        (False, 2, 1, r"supervisor \(pid \d+\) was stopped for 2 s"),
        (True, 900, 130, "interrupted"),  # Ctrl-C does not wait for it
    ],
)
def test_stopped_supervisor_counts_as_a_hang(
    launch: Callable[..., Any], interrupt: bool, hang_timeout: int, code: int, reason: str
) -> None:
    run = launch(LONG, "cluster.shutdown_timeout=900", f"cluster.hang_timeout={hang_timeout}")
    run.pid("trainer rank")
    os.kill(run.supervisor, signal.SIGSTOP)
    if interrupt:
        run.process.send_signal(signal.SIGINT)
    assert run.wait()[0] == code
    assert re.fullmatch(reason, run.summary["reason"])
    assert_nothing_left(run)


def test_run_continues_while_its_launcher_is_stopped(launch: Callable[..., Any]) -> None:
    run = launch("FAKE_STEP_SECONDS=0.2")
    run.pid("trainer rank")
    run.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: (run.run_dir / "summary.json").exists())
    assert run.summary["ok"]
    run.process.send_signal(signal.SIGCONT)
    assert run.wait()[0] == 0


Child = subprocess.Popen[bytes]


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Two processes that exit with code 1 when their stdin is closed."""
    started = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    yield started
    for child in started:
        child.kill()
        child.wait()
        child.stdin.close()


def end(child: Child) -> None:
    child.stdin.close()
    child.wait()


def process_event(role: str, child: Child) -> dict[str, Any]:
    return {"kind": "process", "role": role, "rank": 0, "pid": child.pid, "node": os.uname().nodename}


def phase_event(phase: str) -> dict[str, Any]:
    return {"kind": "phase", "phase": phase, "detail": "", "step": 3, "steps": 4}


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[FailureMonitor]:
    found = FailureMonitor(RunLog(tmp_path), 600, tmp_path / "stacks.log")
    yield found
    found.close()


@pytest.mark.parametrize(("phase", "is_lost"), [("sync", True), ("stop", False), ("save", False)])
def test_engine_exit_is_a_failure_unless_the_run_closed_it(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child], phase: str, is_lost: bool
) -> None:
    """The exit and the phase in which engines are closed may both come between two checks."""
    engine = children[0]
    add_lines(tmp_path / "events.jsonl", process_event("engine", engine), phase_event("rollout"))
    assert not monitor.check()
    add_lines(tmp_path / "events.jsonl", phase_event(phase))
    end(engine)
    assert not monitor.check()
    assert (monitor.cause is not None) is is_lost


@pytest.mark.parametrize("shuts_down", [False, True])
def test_raylet_is_blamed_for_its_actors_unless_the_run_shuts_down(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child], shuts_down: bool
) -> None:
    rank, raylet = children
    add_lines(tmp_path / "events.jsonl", process_event("trainer rank", rank), process_event("raylet", raylet))
    assert not monitor.check()
    end(rank)
    monitor.check()
    assert monitor.cause
    assert monitor.cause.process["pid"] == rank.pid
    if shuts_down:
        add_lines(tmp_path / "events.jsonl", {"kind": "ending", "done": False})
    end(raylet)
    monitor.check()
    assert monitor.cause.process["pid"] == (rank if shuts_down else raylet).pid


def test_raylet_is_blamed_rather_than_the_gcs_that_was_killed_after_it(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child]
) -> None:
    gcs, raylet = children
    add_lines(tmp_path / "events.jsonl", process_event("GCS", gcs), process_event("raylet", raylet))
    assert not monitor.check()
    for process in children:
        process.kill()
        process.wait()
    monitor.check()
    assert monitor.cause
    assert monitor.cause.process["pid"] == raylet.pid


def error_event(kind: str, exited: list[int], **fields: Any) -> dict[str, Any]:
    error = {"kind": kind, "message": kind, "hint": "", "pid": None, "lost_peer": False, "exited": exited}
    return {"kind": "error", "error": error | fields}


ENDING = {"kind": "ending", "done": False}


@pytest.mark.parametrize("lost", [False, True])
def test_error_explains_itself_unless_a_process_had_exited_before_it(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child], lost: bool
) -> None:
    """The error and the exits of the processes that it ends are noticed in one check."""
    trainer, worker = children
    add_lines(
        tmp_path / "events.jsonl",
        process_event("trainer rank", trainer),
        process_event("engine worker", worker),
    )
    assert not monitor.check()
    error = error_event("KeyError", [worker.pid] if lost else [])
    add_lines(tmp_path / "events.jsonl", error, ENDING)
    for process in (trainer, worker):
        process.kill()
        process.wait()
    monitor.check()
    monitor.check()
    assert (monitor.cause and monitor.cause.process["pid"]) == (worker.pid if lost else None)


def test_error_explains_itself_although_the_shutdown_takes_long(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child]
) -> None:
    """Between the error and the end of the run, trackers write their last data."""
    trainer = children[0]
    add_lines(tmp_path / "events.jsonl", process_event("trainer rank", trainer))
    assert not monitor.check()
    add_lines(tmp_path / "events.jsonl", error_event("KeyError", []))
    assert not monitor.check()
    trainer.kill()
    trainer.wait()
    assert not monitor.check()
    add_lines(tmp_path / "events.jsonl", ENDING)
    monitor.check()
    assert monitor.cause is None


@pytest.mark.parametrize("noticed", [False, True], ids=["at once", "exit first"])
@pytest.mark.parametrize("how", ["exit", "SIGTERM", "SIGKILL"])
def test_error_explains_itself_although_the_process_that_failed_has_exited(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child], how: str, noticed: bool
) -> None:
    """A process that was killed is the cause. One that ends itself has failed for the reported reason."""
    worker = children[0]
    add_lines(tmp_path / "events.jsonl", process_event("engine worker", worker))
    assert not monitor.check()
    if how == "exit":
        end(worker)
    else:
        worker.send_signal(getattr(signal, how))
        worker.wait()
    if noticed:
        monitor.check()
    add_lines(tmp_path / "events.jsonl", error_event("ValueError", [worker.pid]), ENDING)
    monitor.check()
    monitor.check()
    assert (monitor.cause is not None) is (how == "SIGKILL")


DRIVER = """
import subprocess, sys
daemon = subprocess.Popen(["gcs_server", "600"], executable=sys.argv[1])
print(daemon.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("closed", [False, True])
def test_daemon_that_exits_before_ray_has_started_is_blamed_unless_the_run_ends_it(
    tmp_path: Path, monitor: FailureMonitor, closed: bool
) -> None:
    """The runtime waits for Ray, and has recorded only itself."""
    program = tmp_path / "gcs_server"
    shutil.copy("/bin/sleep", program)
    pipe = subprocess.PIPE
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, program], stdin=pipe, stdout=pipe, text=True)
    try:
        pid = int(driver.stdout.readline())
        starting = phase_event("start-up") | {"detail": "starting Ray"}
        add_lines(tmp_path / "events.jsonl", starting, process_event("runtime driver", driver))
        wait_until(lambda: psutil.Process(pid).name() == "gcs_server")
        assert not monitor.check()
        if closed:
            add_lines(tmp_path / "events.jsonl", {"kind": "closing", "pids": [pid]})
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: has_exited(pid))
        monitor.check()
        reason = monitor.cause and monitor.cause.reason
        assert reason == (None if closed else f"GCS (pid {pid}) was killed by SIGKILL")
    finally:
        driver.communicate()


def test_lost_process_is_blamed_although_its_exit_was_collected(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child]
) -> None:
    end(children[0])  # before the monitor reads about it
    event = process_event("trainer rank", children[0])
    error = error_event("RuntimeError", [event["pid"]], lost_peer=True)
    add_lines(tmp_path / "events.jsonl", event, error, ENDING)
    monitor.check()
    assert monitor.cause
    assert monitor.cause.reason == f"trainer rank 0 (pid {event['pid']}) died"


def test_engine_that_was_closed_is_not_blamed_for_a_later_error(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child]
) -> None:
    engine = children[0]
    add_lines(tmp_path / "events.jsonl", process_event("engine", engine), phase_event("save"))
    assert not monitor.check()
    end(engine)
    add_lines(tmp_path / "events.jsonl", error_event("OSError", [engine.pid]), ENDING)
    monitor.check()
    assert monitor.cause is None


@pytest.mark.parametrize("lost_peer", [False, True])
def test_stopped_process_is_blamed_for_errors_about_lost_processes_only(
    tmp_path: Path, monitor: FailureMonitor, children: list[Child], lost_peer: bool
) -> None:
    raylet = children[0]
    add_lines(tmp_path / "events.jsonl", process_event("raylet", raylet))
    assert not monitor.check()
    raylet.send_signal(signal.SIGSTOP)
    wait_until(lambda: psutil.Process(raylet.pid).status() == psutil.STATUS_STOPPED)
    add_lines(tmp_path / "events.jsonl", error_event("RpcError", [], lost_peer=lost_peer), ENDING)
    monitor.check()
    assert (monitor.cause and monitor.cause.process["pid"]) == (raylet.pid if lost_peer else None)
