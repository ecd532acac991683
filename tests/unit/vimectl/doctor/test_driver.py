from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.driver import container
from vimectl.doctor.finding import Subject
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host


@pytest.mark.parametrize(
    ("path", "text", "environment", "kind"),
    [
        ("/.dockerenv", "", {}, "docker"),
        ("/run/.containerenv", "", {}, "podman"),
        ("/etc/hosts", "", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ("/proc/1/environ", "HOME=/\0container=lxc\0", {}, "lxc"),
        ("/proc/1/environ", "HOME=/\0", {}, None),
    ],
)
def test_a_container_is_told_by_what_its_engine_leaves(
    tmp_path: Path, path: str, text: str, environment: dict[str, str], kind: str | None
) -> None:
    file = tmp_path / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert container(Subject(Host(tmp_path, environment), load_stack("ascend-0.22"))) == kind


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
def test_firmware_is_judged_by_what_the_driver_lists(
    tmp_path: Path, accepted: str, firmware: str, status: str
) -> None:
    machine = Machine("a2-host", tmp_path)
    lines = f"Version=25.5.1\ncompatible_version_fw={accepted}\n"
    machine.path("/usr/local/Ascend/driver/version.info").write_text(lines)
    machine.path("/usr/local/Ascend/firmware/version.info").write_text(f"Version={firmware}\n")
    (finding,) = machine.examine(["driver.firmware"]).findings
    assert finding.status == status
