from __future__ import annotations

import subprocess
import sys

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.facts.account import read_clone3, read_writable
from vimectl.util.host import CommandResult, Host


def test_name_may_come_from_a_directory_service(npu: Machine) -> None:
    npu.write("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
    assert npu.check("environment.user").status == "fail"
    npu.commands["getent passwd 1001"] = CommandResult(0, "lihua:x:1001:1001::/home/lihua:/bin/sh\n")
    result = npu.check("environment.user")
    assert (result.status, result.found) == ("pass", "lihua, number 1001")


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_home_is_an_absolute_path(npu: Machine, home: str | None) -> None:
    npu.environment.pop("HOME")
    if home is not None:
        npu.environment["HOME"] = home
    assert npu.check("environment.home").status == "fail"


def test_absent_home_below_an_existing_directory_can_be_made(npu: Machine) -> None:
    npu.environment["HOME"] = "/home/other"
    assert "mkdir -p /home/other && chown 1001 /home/other" in npu.check("environment.home").fix


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("TRITON_CACHE_DIR", "/home/user/none/triton", "pass"),  # is created
        ("TRITON_CACHE_DIR", "/closed/triton", "fail"),
        ("HF_HOME", "/closed/hf", "warn"),
        ("TMPDIR", "/tmp", "pass"),
        ("TMPDIR", "/none", "warn"),  # the launcher sets it
        ("HCCL_SO_PATH", "/none/libhccl.so", "fail"),
        ("ASCEND_CUSTOM_OPP_PATH", "/home/user:/home", "pass"),
        ("ASCEND_CUSTOM_OPP_PATH", "/home/user:/none", "warn"),
    ],
)
def test_paths_of_variables(npu: Machine, name: str, value: str, status: str) -> None:
    npu.path("/closed").mkdir()
    npu.commands["test -w /closed"] = CommandResult(1)
    npu.environment[name] = value
    result = npu.check("environment.paths")
    assert result.status == status
    assert status == "pass" or f"unset {name}" in result.fix


def test_threads_can_be_created_here() -> None:
    """The probe creates nothing. These tests have threads, so it is not refused with EPERM."""
    assert read_clone3(Host(given_python=sys.executable)) in ("EINVAL", "ENOSYS")
    assert subprocess.run(["true"], check=False).returncode == 0


def test_directory_is_writable_for_this_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert read_writable(Host(), str(tmp_path_factory.mktemp("writable")))
    assert not read_writable(Host(), "/none")


@pytest.mark.parametrize(
    ("docker", "answer", "status"),
    [
        ("Docker version 18.09.0, build 4a6e2c4", "EPERM", "fail"),
        ("Docker version 18.09.0, build 4a6e2c4", "EINVAL", "warn"),
        ("Docker version 20.10.9, build c2ea9bc", "ENOSYS", "warn"),
        ("Docker version 20.10.10, build b485636", "ENOSYS", "pass"),
        ("podman version 4.3.1", "EINVAL", "pass"),
        ("", "EPERM", "fail"),
    ],
)
def test_clone3_is_not_refused(npu: Machine, docker: str, answer: str, status: str) -> None:
    npu.commands["docker --version"] = CommandResult(0 if docker else 127, docker)
    npu.commands["* -c import ctypes, errno*"] = CommandResult(0, answer + "\n")
    assert npu.check("environment.clone3").status == status
