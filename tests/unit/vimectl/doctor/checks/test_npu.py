"""Which devices a job uses, how bad ones are avoided, and who may open them."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine


@pytest.mark.parametrize(
    ("rules", "status"),
    [
        ("a *:* rwm\n", "pass"),
        ("c 235:* rw\n", "pass"),
        ("c 235:0 rwm\nc 5:1 rwm\n", "pass"),
        ("c 235:1 rwm\n", "fail"),
        ("c 23:0 rwm\n", "fail"),
        ("b 235:0 rwm\n", "fail"),  # of block devices
        ("c *:* m\n", "fail"),  # mknod only
    ],
)
def test_device_cgroup_must_allow_the_devices(tmp_path: Path, rules: str, status: str) -> None:
    machine = Machine("a2-container", tmp_path)
    machine.write("/sys/fs/cgroup/devices/devices.list", rules)
    assert machine.check("device.permissions").status == status


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
    ("uid", "groups", "mode", "status"),
    [
        (0, "0", "600 1 1 HwHiAiUser", "pass"),  # root may
        (0, "0\nCapEff:\t00000000a80425fb", "600 1 1 HwHiAiUser", "pass"),
        (0, "0\nCapEff:\t0000000000000000", "600 1 1 HwHiAiUser", "fail"),  # without CAP_DAC_OVERRIDE
        (1001, "1000", "660 0 1000 HwHiAiUser", "pass"),
        (1001, "1001", "660 0 1000 HwHiAiUser", "fail"),
        (1001, "1001", "666 0 1000 HwHiAiUser", "pass"),
        (1001, "1000", "606 0 1000 HwHiAiUser", "fail"),  # the group class decides, not others
        (1001, "1001", "640 1001 1000 HwHiAiUser", "pass"),  # the owner class decides, not the group
        (1001, "1000", "640 0 1000 HwHiAiUser", "fail"),  # reading is not enough
    ],
)
def test_device_permissions(tmp_path: Path, uid: int, groups: str, mode: str, status: str) -> None:
    machine = Machine("a2-host", tmp_path)
    machine.mode = mode
    ids = f"{uid}\t" * 4
    machine.path("/proc/self/status").write_text(f"Uid:\t{ids}\nGid:\t{ids}\nGroups:\t{groups} \n")
    result = machine.check("device.permissions")
    assert (result.status, result.group) == (status, "device")


@pytest.mark.parametrize(
    ("accepted", "firmware", "status"),
    [
        ("[7.0.0,7.5.99]", "7.5.0.1.129", "pass"),
        ("[7.0.0,7.5.99]", "7.8.0.6.201", "fail"),
        ("[6.4.0,6.4.99],[7.0.0,8.9.9]", "6.4.12.1.241", "pass"),
        ("[6.4.0,6.4.99],[7.0.0,8.9.9]", "6.5.0", "fail"),
        ("", "7.8.0.6.201", "skip"),
    ],
)
def test_firmware_is_compared_with_the_list_of_the_driver(
    tmp_path: Path, accepted: str, firmware: str, status: str
) -> None:
    machine = Machine("a2-host", tmp_path)
    lines = f"Version=25.5.1\ncompatible_version_fw={accepted}\n"
    machine.path("/usr/local/Ascend/driver/version.info").write_text(lines)
    machine.path("/usr/local/Ascend/firmware/version.info").write_text(f"Version={firmware}\n")
    assert machine.check("driver.firmware").status == status
