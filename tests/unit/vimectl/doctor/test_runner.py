from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.doctor import run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack

if TYPE_CHECKING:
    from conftest import Machine

TINY = resolve("qwen3-tiny-tp2").recipe
LARGE = resolve("qwen3-4b-tp2").recipe


def test_healthy_cpu_machine_has_no_problem(cpu: Machine) -> None:
    report = run_checks(cpu.host(), load_stack("cpu-0.32"), TINY)
    assert report.first is None
    groups = {result.group for result in report.results if result.status != "skip"}
    assert not groups & {"device", "driver", "cann", "tms"}  # not for the CPU
    assert {"host", "python", "packages", "environment", "leftovers"} <= groups


def test_only_selects_checks_and_groups(cpu: Machine) -> None:
    report = run_checks(cpu.host(), load_stack("cpu-0.32"), TINY, ["host.memory", "leftovers"])
    assert [result.id for result in report.results] == [
        "host.memory",
        "leftovers.processes",
        "leftovers.folders",
        "leftovers.shm",
    ]
    with pytest.raises(UsageError, match=r"host\.memory"):
        run_checks(cpu.host(), load_stack("cpu-0.32"), TINY, ["host.memry"])


def test_without_excludes_checks_and_groups(cpu: Machine) -> None:
    report = run_checks(
        cpu.host(),
        load_stack("cpu-0.32"),
        TINY,
        ["leftovers", "host.memory"],
        without=["leftovers.shm", "host"],
    )
    assert [result.id for result in report.results] == ["leftovers.processes", "leftovers.folders"]


def test_unreadable_facts_are_skipped(bare: Machine) -> None:
    report = run_checks(bare.host(), load_stack("cpu-0.32"), TINY, ["host"])
    assert {result.status for result in report.results} == {"skip"}


def test_without_npu_only_the_device_count_fails(npu: Machine) -> None:
    for node in (npu.root / "dev").glob("davinci?"):
        node.unlink()
    report = run_checks(npu.host(), load_stack("ascend-0.22"), LARGE)
    assert [result.id for result in report.failures] == ["device.count"]
    assert {result.status for result in report.results if result.id != "device.count"} == {"skip"}
    selected = run_checks(npu.host(), load_stack("ascend-0.22"), LARGE, ["tms"])
    assert [result.id for result in selected.failures] == ["tms.library"]
