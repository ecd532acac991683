from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vimectl.doctor import run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack

if TYPE_CHECKING:
    from conftest import Machine


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
def test_the_list_is_judged_as_cann_reads_it(
    npu: Machine, value: str | None, status: str, found: str, fix: str
) -> None:
    if value is not None:
        npu.environment["ASCEND_RT_VISIBLE_DEVICES"] = value
    recipe = resolve("qwen3-4b-tp2", assignments=["cluster.devices_per_node=4"]).recipe
    report = run_checks(npu.host(), load_stack("ascend-0.22"), recipe, ["environment.visible-devices"])
    (finding,) = report.findings
    assert (finding.status, finding.fix) == (status, fix)
    assert found in finding.found


def test_the_recipes_own_list_is_the_one_that_counts(npu: Machine) -> None:
    npu.environment["ASCEND_RT_VISIBLE_DEVICES"] = "0"
    recipe = resolve("qwen3-4b-tp2", assignments=['env.ASCEND_RT_VISIBLE_DEVICES="0,1,2,3,4,5,6,7"']).recipe
    report = run_checks(npu.host(), load_stack("ascend-0.22"), recipe, ["environment.visible-devices"])
    assert report.ok
