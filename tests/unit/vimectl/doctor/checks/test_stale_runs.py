from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine

SCRATCH = "TMPDIR=/tmp/vime-0123abcd\0"


def start(machine: Machine, pid: int, argv: list[str], environment: str, parent: int | None = None) -> None:
    machine.write(f"/proc/{pid}/cmdline", "\0".join(argv) + "\0")
    machine.write(f"/proc/{pid}/environ", environment)
    if parent is not None:
        machine.write(f"/proc/{pid}/status", f"Name:\t{argv[0]}\nPPid:\t{parent}\n")


@pytest.mark.parametrize(
    "argv",
    [
        ["python", "-m", "vime_runtime", "/runs/a/resolved.json"],
        ["python", "-m", "vime_runtime.prepare", "reversed-digits", "/cache/x", "{}"],
    ],
)
def test_run_is_active_until_init_adopts_it(cpu: Machine, argv: list[str]) -> None:
    start(cpu, 40, ["python", "-m", "vimectl.runs.supervisor", "/runs/a"], "")
    start(cpu, 41, argv, SCRATCH, parent=40)
    start(cpu, 42, ["ray::TrainerActor"], SCRATCH)
    cpu.write("/tmp/vime-0123abcd/ray/session.log")
    assert cpu.check("leftovers.processes").status == "warn"
    start(cpu, 41, argv, SCRATCH, parent=1)
    result = cpu.check("leftovers.processes")
    assert (result.status, result.fix) == ("fail", "kill 41 42")
    assert cpu.check("leftovers.folders").status == "pass"


@pytest.mark.parametrize(("raylet_environment", "status"), [("", "warn"), (SCRATCH, "fail")])
def test_processes_of_another_cluster_are_active(cpu: Machine, raylet_environment: str, status: str) -> None:
    """The run's own raylet is a leftover, because its launcher has exited."""
    argv = ["/site/ray/core/src/ray/raylet/raylet", "--session-dir=/tmp/ray/session"]
    start(cpu, 40, argv, raylet_environment)
    start(cpu, 41, ["ray::TrainerActor"], SCRATCH, parent=40)
    start(cpu, 42, ["VLLM::Worker"], SCRATCH, parent=41)
    assert cpu.check("leftovers.processes").status == status


def test_shared_memory_in_use_is_no_leftover(cpu: Machine) -> None:
    cpu.write("/dev/shm/sem.lock", "x")
    assert cpu.check("leftovers.shm").status == "warn"
    inode = (cpu.root / "dev/shm/sem.lock").stat().st_ino
    cpu.write("/proc/7/maps", f"7f00-7f01 rw-s 00000000 00:1a {inode}      /dev/shm/sem.Xy12 (deleted)\n")
    assert cpu.check("leftovers.shm").status == "pass"
