"""Which chips a job uses, and how bad ones are avoided."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine
from vimectl.util.host import CommandResult


def fixes(machine: Machine) -> dict[str, tuple[str, str]]:
    report = machine.examine(["device.processes", "device.memory"])
    return {result.id: (result.status, result.fix) for result in report.results}


def test_fix_names_four_free_devices(tmp_path: Path) -> None:
    machine = Machine("other-user", tmp_path)
    del machine.environment["ASCEND_RT_VISIBLE_DEVICES"]
    for status, fix in fixes(machine).values():
        assert status == "fail"
        assert fix.startswith("export ASCEND_RT_VISIBLE_DEVICES=2,3,4,5 ")


def test_job_of_all_devices_has_no_device_to_avoid(tmp_path: Path) -> None:
    assert all(not fix.startswith("export") for _, fix in fixes(Machine("held", tmp_path)).values())


@pytest.mark.parametrize("value", ["0,4,5,6", "x", "1"])
def test_busy_device_of_the_job_is_found(tmp_path: Path, value: str) -> None:
    machine = Machine("other-user", tmp_path)
    machine.environment["ASCEND_RT_VISIBLE_DEVICES"] = value
    assert {status for status, _ in fixes(machine).values()} == {"fail"}


@pytest.mark.parametrize(
    ("health", "status"), [("OK", "pass"), ("Warning", "warn"), ("Critical", "fail"), ("UNKNOWN", "fail")]
)
def test_level_of_health(tmp_path: Path, health: str, status: str) -> None:
    machine = Machine("a2-host", tmp_path)
    text = machine.commands["npu-smi info"].stdout.replace("| OK      ", f"| {health:8}", 1)
    machine.commands["npu-smi info"] = CommandResult(0, text)
    assert machine.check("device.health").status == status
