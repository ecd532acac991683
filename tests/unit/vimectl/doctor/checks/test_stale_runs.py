"""Leftovers of real processes: only those of a killed run are named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.doctor.described_machine import Machine
from harness.runs.killed_run import leave_scratch_directory
from harness.runs.wait import wait_until
from vimectl.doctor.check import CheckResult
from vimectl.doctor.runner import run_checks
from vimectl.runs.descendants import SharedMemoryWatch
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host
from vimectl.util.scratch_directory import OWNER, SHM_LOG, scratch_directory

# Owns a scratch directory like a supervisor, starts a process like a rank, and waits.
SUPERVISOR = """
import os, subprocess, sys
from pathlib import Path
from typing import Any
from vimectl.util.scratch_directory import scratch_directory
with scratch_directory(Path(sys.argv[1]), Path("/runs/a b")):
    environment = {**os.environ, "TMPDIR": sys.argv[1]}
    rank = subprocess.Popen(["sleep", "600"], env=environment, start_new_session=True)
    print(rank.pid, flush=True)
    sys.stdin.read()
    rank.kill()
    rank.wait()
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "vime-0123abcd"


class OwnHost(Host):
    """This machine without the runs of other tests and of the user, which have other temporary folders."""

    def names(self, directory: str) -> list[str]:
        found = super().names(directory)
        if directory == "/proc":
            return [name for name in found if not self._is_of_another_run(name)]
        return [] if directory == "/tmp" else found

    def _is_of_another_run(self, name: str) -> bool:
        scratch = re.search(r"\bTMPDIR=(.*?)/vime-", self.read(f"/proc/{name}/environ") or "")
        return scratch is not None and scratch[1] != self.environment["TMPDIR"]


Check = Callable[[str], CheckResult]


def checker(host: Host) -> Check:
    def run(id: str) -> CheckResult:
        (result,) = run_checks(host, load_stack("cpu-0.32"), only=[id]).results
        return result

    return run


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Examine this machine, whose temporary folder is that of the test."""
    return checker(OwnHost(environment={"TMPDIR": str(tmp_path)}))


@pytest.fixture
def supervisor(scratch: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that owns a scratch directory, and the id of its child."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(scratch)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(process.stdout.readline())
    child_fd = os.pidfd_open(child)
    yield process, child
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(child_fd, signal.SIGKILL)
    os.close(child_fd)
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Start a process with a TMPDIR and return its id."""
    started = []

    def run(tmpdir: Path, *command: str) -> int:
        started.append(subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmpdir)}))
        return started[-1].pid

    yield run
    for process in started:
        process.kill()
        process.wait()


def pids(result: CheckResult) -> list[int]:
    words = result.fix.partition("  (")[0].split()
    return [int(word) for word in words[1:]] if words[:1] == ["kill"] else []


@pytest.mark.parametrize("signum", [None, signal.SIGSTOP])
def test_live_run_is_active(
    check: Check,
    supervisor: tuple[subprocess.Popen[str], int],
    scratch: Path,
    signum: int | None,
) -> None:
    if signum:
        supervisor[0].send_signal(signum)
    result = check("leftovers.processes")
    assert result.status == "warn"
    assert "/runs/a b" in result.found
    assert "vimectl runs stop '/runs/a b'" in result.fix
    assert str(scratch) not in check("leftovers.folders").fix


def test_only_the_processes_of_a_killed_run_are_named(
    check: Check,
    supervisor: tuple[subprocess.Popen[str], int],
    start: Callable[..., int],
    tmp_path: Path,
    scratch: Path,
) -> None:
    process, child = supervisor
    names_it = start(tmp_path, "tail", "-f", str(scratch / OWNER))
    without_marker = tmp_path / "vime-89abcdef"
    without_marker.mkdir()
    benchmark = start(without_marker, sys.executable, "-c", "import time; time.sleep(600)  # vime_runtime")
    ray = start(tmp_path, "bash", "-c", "exec -a ray::TrainerActor sleep 600")
    assert child not in pids(check("leftovers.processes"))

    process.kill()
    process.wait()
    result = check("leftovers.processes")
    assert (result.status, pids(result)) == ("fail", [child])
    assert not {names_it, benchmark, ray} & set(pids(result))
    assert str(scratch) not in check("leftovers.folders").fix  # a process still uses it

    os.kill(child, signal.SIGKILL)
    wait_until(lambda: check("leftovers.processes").status == "pass")
    result = check("leftovers.folders")
    assert (result.status, result.fix) == ("warn", f"rm -r {scratch}")


def test_run_that_has_ended_leaves_nothing(
    check: Check, supervisor: tuple[subprocess.Popen[str], int], scratch: Path
) -> None:
    supervisor[0].stdin.close()
    supervisor[0].wait()
    assert not scratch.exists()
    assert str(scratch) not in check("leftovers.folders").found


def test_doctor_in_the_environment_of_a_killed_run_does_not_name_itself(
    supervisor: tuple[subprocess.Popen[str], int], scratch: Path, tmp_path: Path
) -> None:
    process, child = supervisor
    process.kill()
    process.wait()
    doctor = f"{sys.executable} -m vimectl doctor --stack cpu-0.32 --only leftovers --json"
    done = subprocess.run(
        ["bash", "-c", f"{doctor} & echo $$ $! >&2; wait $!; true"],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {one["id"]: one for one in json.loads(done.stdout)["checks"]}
    named = re.findall(r"\d+", found["leftovers.processes"]["fix"].partition("(")[0])
    assert str(child) in named  # and maybe those of runs that other tests have killed
    # Neither the doctor nor the shell above it.
    assert not set(done.stderr.split()) & set(named)


def test_only_shared_memory_of_a_killed_run_is_named(check: Check, scratch: Path, tmp_path: Path) -> None:
    kept, foreign = (Path(f"/dev/shm/test-{os.getpid()}-{name}") for name in ("kept", "foreign"))
    program = f"import os; os.open({str(kept)!r}, os.O_CREAT | os.O_RDWR); print(flush=True); input()"
    log = tmp_path / "shm.log"
    watch = SharedMemoryWatch(log)
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        child.stdout.readline()
        foreign.touch()
        watch.update()
        assert log.read_text() == f"{kept.stat().st_ino} {kept}\n"
        child.kill()
        child.communicate()
        assert str(kept) not in check("leftovers.shm").fix  # no run is known to have made it
        with scratch_directory(scratch):
            (scratch / SHM_LOG).write_text(log.read_text())
            assert str(kept) not in check("leftovers.shm").fix  # the run is active
        leave_scratch_directory(scratch)
        (scratch / SHM_LOG).write_text(log.read_text())
        result = check("leftovers.shm")
        assert (result.status, str(kept) in result.fix.split()) == ("warn", True)
        assert str(foreign) not in result.fix
        kept.unlink()
        kept.touch()  # another file with this name
        assert str(kept) not in check("leftovers.shm").fix
    finally:
        child.kill()
        child.wait()
        kept.unlink(missing_ok=True)
        foreign.unlink(missing_ok=True)


def test_mapped_shared_memory_is_in_use(cpu: Machine) -> None:
    cpu.write("/dev/shm/sem.lock", "x")
    assert "1 of them" in cpu.check("leftovers.shm").found
    inode = (cpu.root / "dev/shm/sem.lock").stat().st_ino
    cpu.write("/proc/7/maps", f"7f00-7f01 rw-s 00000000 00:1a {inode}      /dev/shm/sem.Xy12 (deleted)\n")
    assert "of them" not in cpu.check("leftovers.shm").found


@pytest.mark.parametrize(
    "marker",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"schema": "other/1", "pid": 1, "boot": "b", "host": "h", "run_dir": ""}',
    ],
)
def test_without_a_marker_of_ours_nothing_is_known(cpu: Machine, marker: str) -> None:
    cpu.write("/proc/sys/kernel/hostname", "h\n")
    cpu.write(f"/tmp/vime-0123abcd/{OWNER}", marker)
    result = cpu.check("leftovers.folders")
    assert (result.status, result.found) == ("pass", "none; of runs that may be active: /tmp/vime-0123abcd")


def test_fixes_remove_what_a_killed_run_has_left(
    launch: Callable[..., Any],
) -> None:
    """A real launch whose supervisor and launcher are killed: their children keep running."""
    check = checker(Host())
    run = launch("FAKE_FAULT=hostile descendants", "FAKE_STEP_SECONDS=600")
    wait_until(lambda: run.run_dir.with_suffix(".scratch").exists())
    wait_until(lambda: len(list(run.scratch_dir.glob("*.pid"))) == 3)
    left = {int(path.stem) for path in run.scratch_dir.glob("*.pid")}
    files = (run.scratch_dir / "shared_memory").read_text().splitlines()
    log = run.scratch_dir / SHM_LOG
    wait_until(lambda: log.exists() and all(file in log.read_text() for file in files))
    assert not left & set(pids(check("leftovers.processes")))
    run.process.send_signal(signal.SIGSTOP)  # or it ends the run
    os.kill(run.supervisor, signal.SIGKILL)
    run.process.kill()
    result = wait_until(lambda: left <= set(pids(found := check("leftovers.processes"))) and found)
    ours = [psutil.Process(pid) for pid in pids(result)]
    ours = [process for process in ours if process.environ().get("TMPDIR") == str(run.scratch_dir)]
    assert left < {process.pid for process in ours}  # and the driver
    assert run.process.pid not in pids(result)
    assert not any(file in check("leftovers.shm").fix for file in files)  # still in use
    for process in ours:
        process.kill()  # some of them ignore SIGTERM
    psutil.wait_procs(ours)
    result = wait_until(lambda: (found := check("leftovers.shm")).status == "warn" and found)
    named = [word for word in result.fix.split() if word in files]
    # The third is a semaphore, which a process of Python removes unless it was killed first.
    assert set(files[:2]) <= set(named)
    subprocess.run(["rm", *named], check=True)
    wait_until(lambda: str(run.scratch_dir) in check("leftovers.folders").fix.split())
    subprocess.run(["rm", "-r", run.scratch_dir], check=True)
    assert str(run.scratch_dir) not in check("leftovers.folders").found
