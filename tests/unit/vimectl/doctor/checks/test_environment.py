from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.check import CheckResult
from vimectl.doctor.runner import run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack


def check(machine: Machine, name: str, assignments: list[str] | None) -> CheckResult:
    """Run one check with the recipe for NPUs; ``assignments`` None: without a recipe."""
    recipe = None
    if assignments is not None:
        recipe = resolve("qwen3-4b-tp2", assignments=assignments).recipe
    report = run_checks(machine.host, load_stack("ascend-0.22"), recipe, [f"environment.{name}"])
    (result,) = report.results
    return result


@pytest.mark.parametrize(
    ("value", "status", "found", "fix"),
    [
        (None, "pass", "not set: all 8 are seen", ""),
        ("4,5,6,7", "pass", "4,5,6,7", ""),
        ("0,1,2,3,4,5,6,7", "pass", "0,1,2,3,4,5,6,7", ""),
        ("0,1,1", "fail", "1 more than once", "unset ASCEND_RT_VISIBLE_DEVICES"),
        ("0,1,2,3,3", "fail", "3 more than once", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("0, 1,2,3", "fail", "of it CANN reads 0", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("npu:0", "fail", "of it CANN reads nothing", "unset ASCEND_RT_VISIBLE_DEVICES"),
        ("", "fail", "empty: not a list", "unset ASCEND_RT_VISIBLE_DEVICES"),
        ("0,1,2,3,8", "fail", "8 is beyond the 8 devices 0 to 7", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("3,2,1,0", "fail", "not ascending", "export ASCEND_RT_VISIBLE_DEVICES=0,1,2,3"),
        ("0,1", "fail", "2 devices", "unset ASCEND_RT_VISIBLE_DEVICES"),
    ],
)
def test_visible_devices_are_read_like_cann(
    npu: Machine, value: str | None, status: str, found: str, fix: str
) -> None:
    if value is not None:
        npu.environment["ASCEND_RT_VISIBLE_DEVICES"] = value
    result = check(npu, "visible-devices", ["cluster.devices_per_node=4"])
    assert (result.status, result.fix) == (status, fix)
    assert found in result.found


def test_visible_devices_of_the_recipe_have_precedence(npu: Machine) -> None:
    npu.environment["ASCEND_RT_VISIBLE_DEVICES"] = "0"
    result = check(npu, "visible-devices", ['env.ASCEND_RT_VISIBLE_DEVICES="0,1,2,3,4,5,6,7"'])
    assert result.status == "pass"


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
        (None, None, "pass", "not set here"),
        ("1", None, "warn", "VIME_COLOCATE=1 here"),
    ],
)
def test_colocation_switch_of_the_engine(
    npu: Machine, here: str | None, assignments: list[str] | None, status: str, found: str
) -> None:
    npu.environment |= {"VIME_COLOCATE": here} if here else {}
    result = check(npu, "colocate", assignments)
    assert (result.status, result.found) == (status, found)


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("nobind", "pass"),
        ("0|1", "pass"),
        ("0-1|0", "pass"),
        ("0,1", "fail"),  # one list for two ranks
        ("0|2-3", "fail"),  # cores that are not allowed
        ("first|second", "fail"),
        ("auto", "fail"),  # one NUMA node for two ranks
    ],
)
def test_cores_of_the_engine(cpu: Machine, value: str, status: str) -> None:
    recipe = resolve("qwen3-tiny-tp2", assignments=[f'env.VLLM_CPU_OMP_THREADS_BIND="{value}"']).recipe
    report = run_checks(cpu.host, load_stack("cpu-0.32"), recipe, ["environment.cores"])
    assert [result.status for result in report.results] == [status]
