"""On which devices a job computes, and how those that are ill or held are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine


def mends(machine: Machine) -> dict[str, tuple[str, str]]:
    report = machine.examine(["device.processes", "device.memory"])
    return {finding.id: (finding.status, finding.fix) for finding in report.findings}


def test_a_job_of_four_is_told_which_four_are_free(tmp_path: Path) -> None:
    machine = Machine("neighbours", tmp_path)
    del machine.environment["ASCEND_RT_VISIBLE_DEVICES"]
    for status, fix in mends(machine).values():
        assert status == "fail"
        assert fix.startswith("export ASCEND_RT_VISIBLE_DEVICES=2,3,4,5 ")


def test_a_job_of_all_is_not_told_to_leave_any_out(tmp_path: Path) -> None:
    assert all(not fix.startswith("export") for _, fix in mends(Machine("held", tmp_path)).values())


@pytest.mark.parametrize("value", ["0,4,5,6", "x", "1"])
def test_a_device_that_the_job_sees_and_somebody_holds_is_found(tmp_path: Path, value: str) -> None:
    machine = Machine("neighbours", tmp_path)
    machine.environment["ASCEND_RT_VISIBLE_DEVICES"] = value
    assert {status for status, _ in mends(machine).values()} == {"fail"}


@pytest.mark.parametrize(
    ("uid", "groups", "mode", "status"),
    [
        (0, "0", "600 1 1 HwHiAiUser", "pass"),  # root may
        (1001, "1000", "660 0 1000 HwHiAiUser", "pass"),
        (1001, "1001", "660 0 1000 HwHiAiUser", "fail"),
        (1001, "1001", "666 0 1000 HwHiAiUser", "pass"),
        (1001, "1000", "606 0 1000 HwHiAiUser", "fail"),  # the group is asked before the others
        (1001, "1001", "640 1001 1000 HwHiAiUser", "pass"),  # the owner before the group
        (1001, "1000", "640 0 1000 HwHiAiUser", "fail"),  # reading does not do
    ],
)
def test_who_may_open_the_devices(tmp_path: Path, uid: int, groups: str, mode: str, status: str) -> None:
    machine = Machine("a2-host", tmp_path)
    machine.mode = mode
    ids = f"{uid}\t" * 4
    machine.path("/proc/self/status").write_text(f"Uid:\t{ids}\nGid:\t{ids}\nGroups:\t{groups} \n")
    (finding,) = machine.examine(["device.permissions"]).findings
    assert (finding.status, finding.group) == (status, "device")
