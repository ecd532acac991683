from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vimectl.doctor import CheckResult, run_checks
from vimectl.stacks.catalog import load_stack

if TYPE_CHECKING:
    from conftest import Machine

SCRATCH = "TMPDIR=/tmp/vime-0123abcd\0"


def check(machine: Machine, name: str) -> CheckResult:
    (result,) = run_checks(machine.host(), load_stack("cpu-0.32"), None, [f"leftovers.{name}"]).results
    return result


@pytest.mark.parametrize(
    "argv",
    [
        ["python", "-m", "vime_runtime", "/runs/a/resolved.json"],
        ["python", "-m", "vime_runtime.prepare", "reversed-digits", "/cache/x", "{}"],
    ],
)
def test_run_is_active_until_init_adopts_it(cpu: Machine, argv: list[str]) -> None:
    cpu.process(40, ["python", "-m", "vimectl.runs.supervisor", "/runs/a"])
    cpu.process(41, argv, SCRATCH)
    cpu.process(42, ["ray::TrainerActor"], SCRATCH)
    cpu.write("/tmp/vime-0123abcd/ray/session.log")
    cpu.write("/proc/41/status", "Name:\tpython\nPPid:\t40\n")
    assert check(cpu, "processes").status == "warn"
    cpu.write("/proc/41/status", "Name:\tpython\nPPid:\t1\n")
    result = check(cpu, "processes")
    assert (result.status, result.fix) == ("fail", "kill 41 42")
    assert check(cpu, "folders").status == "pass"


@pytest.mark.parametrize(("raylet_environment", "status"), [("", "warn"), (SCRATCH, "fail")])
def test_processes_of_another_cluster_are_active(cpu: Machine, raylet_environment: str, status: str) -> None:
    """The run's own raylet is a leftover, because its launcher has exited."""
    argv = ["/site/ray/core/src/ray/raylet/raylet", "--session-dir=/tmp/ray/session"]
    cpu.process(40, argv, raylet_environment)
    cpu.process(41, ["ray::TrainerActor"], SCRATCH)
    cpu.write("/proc/41/status", "Name:\tray::TrainerActor\nPPid:\t40\n")
    cpu.process(42, ["VLLM::Worker"], SCRATCH)
    cpu.write("/proc/42/status", "Name:\tVLLM::Worker\nPPid:\t41\n")
    assert check(cpu, "processes").status == status


def test_shared_memory_in_use_is_no_leftover(cpu: Machine) -> None:
    cpu.write("/dev/shm/sem.lock", "x")
    assert check(cpu, "shm").status == "warn"
    inode = (cpu.root / "dev/shm/sem.lock").stat().st_ino
    cpu.write("/proc/7/maps", f"7f00-7f01 rw-s 00000000 00:1a {inode}      /dev/shm/sem.Xy12 (deleted)\n")
    assert check(cpu, "shm").status == "pass"
