"""Leftovers of killed runs, and who may remove them: real runs and processes, also of another user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY, TESTS, script
from harness.runs.killed_run import leave_scratch_directory
from harness.runs.wait import wait_until
from vimectl.doctor.facts.processes import read_run_processes
from vimectl.doctor.runner import run_checks
from vimectl.runs.process_watch import process_state
from vimectl.runs.remove_run import check_removable
from vimectl.runs.run_directory import RunDirectory
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host
from vimectl.util.scratch_directory import SHM_LOG

VIMECTL = [sys.executable, "-m", "vimectl"]
STRANGER = 65534
LONG = "FAKE_STEP_SECONDS=600"
HOSTILE = "FAKE_FAULT=hostile descendants"
# The files of other users' processes are not visible below this /proc.
HIDDEN = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"]


def kill_owners(run: Any) -> None:
    """Kill launcher, supervisor and driver, in the order in which none of them can clean up."""
    pids = [run.launcher, run.supervisor, run.pid("runtime driver")]
    os.kill(pids[0], signal.SIGSTOP)
    for pid in (pids[1], pids[2], pids[0]):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(process_state, pids)))


@pytest.mark.parametrize("command", ["stop", "resume"])
def test_command_on_a_run_whose_owners_were_killed_clears_it(
    launch: Callable[..., Any], command: str
) -> None:
    run = launch("--detach", HOSTILE, LONG)
    code, _, err = run.wait()
    assert code == 0, err
    wait_until(lambda: len(list(run.scratch_dir.glob("*.pid"))) == 3)
    left = [int(path.stem) for path in run.scratch_dir.glob("*.pid")]
    files = [Path(line) for line in (run.scratch_dir / "shared_memory").read_text().splitlines()]
    log = run.scratch_dir / SHM_LOG
    wait_until(lambda: log.exists() and all(str(file) in log.read_text() for file in files))
    kill_owners(run)

    listing = vimectl(run, "runs", "list", "--dir", str(run.run_dir.parent))
    assert "\tlost\t" in listing.stdout
    assert run.scratch_dir.exists()  # processes use it
    assert all(map(process_state, left))

    if command == "stop":
        done = vimectl(run, "runs", "stop", str(run.run_dir))
        assert done.returncode == 0, done.stderr
    else:
        settings = [f"--set=env.{setting}" for setting in (HOSTILE, LONG)]
        resume = ["--mode=smoke", "--resume", f"--run-dir={run.run_dir}", *settings]
        # It then refuses to start: the fake runtime is none of the stack.
        done = vimectl(run, "run", "recipe", "qwen3-tiny-tp2", *resume)
    assert f"ending the processes that {run.run_dir.name} left: " in done.stderr
    assert f"removed what a killed run left: {run.scratch_dir}" in done.stderr
    assert not any(map(process_state, left))
    assert not run.scratch_dir.exists()
    assert not any(file.exists() for file in files)


@pytest.fixture(autouse=True)
def _end_hostile_descendants(tmp_path: Path) -> Iterator[None]:
    """End what a failed test leaves: no other run would start."""
    yield
    scratch = tmp_path / "run.scratch"
    for process in read_run_processes(Host()) if scratch.exists() else ():
        if process.scratch == scratch.read_text():
            os.kill(process.pid, signal.SIGKILL)


def vimectl(run: Any, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VIMECTL, *arguments], env=run.environment, capture_output=True, text=True)


@pytest.mark.parametrize("command", [["list"], ["rm", "--yes", "none"]])
def test_next_command_removes_the_files_of_a_killed_run(tmp_path: Path, command: list[str]) -> None:
    scratch = tmp_path / "vime-0123abcd"
    leave_scratch_directory(scratch)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*VIMECTL, "runs", *command], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert f"removed what a killed run left: {scratch}\n" in done.stderr
    assert not scratch.exists()


@pytest.fixture
def visible_folder() -> Iterator[Path]:
    """A folder that all users can read, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="test-leftovers-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def foreign_process(visible_folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of another user that claims to be of the run of a scratch directory."""
    environment = {"TMPDIR": str(visible_folder / "vime-0123abcd")}
    process = subprocess.Popen(["/bin/sleep", "600"], env=environment, user=STRANGER, extra_groups=[])
    yield process
    process.kill()
    process.wait()


@pytest.mark.needs("root")
def test_process_of_another_user_blocks_nothing(
    visible_folder: Path, foreign_process: subprocess.Popen[bytes]
) -> None:
    scratch, run_dir = visible_folder / "vime-0123abcd", visible_folder / "run"
    run_dir.mkdir()
    document = {"schema": "vimectl.run/1", "scratch_dir": str(scratch)}
    (run_dir / "resolved.json").write_text(json.dumps(document))
    leave_scratch_directory(scratch)
    report = run_checks(
        Host(environment={"TMPDIR": str(visible_folder)}), load_stack("cpu-0.32"), only=["leftovers"]
    )
    found = {result.id: result for result in report.results}
    assert str(foreign_process.pid) not in found["leftovers.processes"].fix
    assert str(scratch) in found["leftovers.folders"].fix
    check_removable(RunDirectory(run_dir))


@pytest.mark.needs("root")
def test_another_user_sees_a_live_run_as_running_and_cannot_stop_it(
    launch: Callable[..., Any], visible_folder: Path
) -> None:
    run = launch("--detach", LONG, folder=visible_folder)
    code, _, err = run.wait()
    assert code == 0, err
    run.pid("trainer rank")
    home = visible_folder / "home"
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)

    def as_nobody(*arguments: str, wrapper: list[str]) -> tuple[int, dict[str, Any]]:
        command = [*wrapper, sys.executable, str(script("runs.as_user")), str(STRANGER), *arguments, "--json"]
        path = os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "runtime", TESTS)))
        environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    try:
        for wrapper in ([], HIDDEN):
            _, listing = as_nobody("runs", "list", "--dir", str(visible_folder), wrapper=wrapper)
            assert [one["state"] for one in listing.get("runs", [])] == ["running"], listing
            code, stop = as_nobody("runs", "stop", str(run.run_dir), wrapper=wrapper)
            assert (code, stop["error"]["kind"]) == (2, "bad-input"), stop
            assert "is a run of root" in stop["error"]["message"] or wrapper
            _, doctor = as_nobody("doctor", "--stack=cpu-0.32", "--only=leftovers", wrapper=wrapper)
            assert all(check["status"] != "fail" for check in doctor["checks"]), doctor
            assert str(run.scratch_dir) not in " ".join(check["fix"] for check in doctor["checks"])
        assert RunDirectory(run.run_dir).state == "running"
    finally:
        os.kill(run.supervisor, signal.SIGTERM)
        wait_until(lambda: RunDirectory(run.run_dir).state != "running")
