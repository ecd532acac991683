from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor.facts.driver import accepts, parse_branch, parse_release, read_container, read_mounts
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
def test_container_is_recognized_by_traces_of_its_engine(
    tmp_path: Path, path: str, text: str, environment: dict[str, str], kind: str | None
) -> None:
    file = tmp_path / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert read_container(Host(tmp_path, environment)) == kind


@pytest.mark.parametrize(
    ("listed", "version", "accepted"),
    [
        ("[V100R001C17],[V100R001C18]", "V100R001C18SPC001B233", True),
        ("[V100R001C17],[V100R001C18]", "V100R001C23SPC002B212", False),
        ("[V100R001C13,V100R001C19],[V100R001C30]", "V100R001C15SPC006B220", True),
        ("[V100R001C13,V100R001C19],[V100R001C30]", "V100R001C20SPC001B251", False),
        ("", "V100R001C18", False),
        ("[V100R001C17]", "7.35.23", False),
        ("[[[,]]", "V100R001C18", False),
    ],
)
def test_branches_are_listed_singly_or_as_ranges(listed: str, version: str, accepted: bool) -> None:
    assert accepts(listed, parse_branch(version), parse_branch) is accepted


def test_leading_numbers_of_a_version() -> None:
    assert parse_release("25.0.rc1.1") == (25, 0)
    assert parse_release("none") == ()


def test_problem_of_each_mount(tmp_path: Path) -> None:
    for path in ("usr/local/Ascend/driver/lib64", "etc/ascend_install.info", "usr/local/dcmi"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "usr/local/dcmi/libdcmi.so").write_text("")
    (tmp_path / "etc/hccn.conf").write_text("")
    assert read_mounts(Host(tmp_path, {})) == {
        "/usr/local/Ascend/driver/lib64": "an empty directory",
        "/usr/local/Ascend/driver/version.info": "absent",
        "/usr/local/dcmi": "",
        "/etc/ascend_install.info": "an empty directory",
        "/usr/local/bin/npu-smi": "absent",
        "/usr/local/Ascend/driver/tools/hccn_tool": "absent",
        "/etc/hccn.conf": "",
    }
