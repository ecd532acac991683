"""Which firmware a driver accepts, and which ways of mounting it are proposed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.checks.driver import mount_fix


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


def test_fix_is_for_the_engine() -> None:
    paths = ["/usr/local/dcmi", "/etc/hccn.conf"]
    volumes = " ".join(f"--volume {path}:{path}" for path in paths)
    docker = f"start the container with {volumes}"
    assert mount_fix("docker", paths) == mount_fix("podman", paths) == docker
    assert "hostPath" in mount_fix("kubernetes", paths)
    assert mount_fix("docker", paths, broken=True).startswith(f"{docker}; the host has no such path")
