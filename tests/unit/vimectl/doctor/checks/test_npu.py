"""Who may open the devices."""

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
