from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor.facts.cann import read_home, read_install_info, read_nnal_home, read_toolkits
from vimectl.util.host import CommandResult, Host


def write_info(root: Path, home: str, machine: str, version: str) -> None:
    file = root / home / f"{machine}-linux/ascend_toolkit_install.info"
    file.parent.mkdir(parents=True)
    file.write_text(f"package_name=Ascend-cann-toolkit\nversion={version}\narch={machine}\n")


def test_toolkit_of_the_environment_goes_before_the_usual_places(tmp_path: Path) -> None:
    write_info(tmp_path, "usr/local/Ascend/cann-9.0.0", "aarch64", "9.0.0")
    (tmp_path / "usr/local/Ascend/cann").symlink_to("/usr/local/Ascend/cann-9.0.0")
    assert read_home(Host(tmp_path, {})) == "/usr/local/Ascend/cann"
    host = Host(tmp_path, {"ASCEND_HOME_PATH": "/opt/cann"})
    assert read_home(host) == "/usr/local/Ascend/cann"  # cann.environment says that /opt/cann does not exist
    write_info(tmp_path, "opt/cann", "x86_64", "8.3.RC2")
    assert read_home(host) == "/opt/cann"
    assert read_install_info(host, "/opt/cann")["version"] == "8.3.RC2"
    assert read_toolkits(host) == {
        "/usr/local/Ascend/cann": "9.0.0",
        "/usr/local/Ascend/cann-9.0.0": "9.0.0",
    }


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_version_file_of_this_machine_goes_first(tmp_path: Path, machine: str) -> None:
    for one in ("aarch64", "x86_64"):
        write_info(tmp_path, "opt/cann", one, "9.0.0")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text("Name:\tpython3\n")
    host = Host(tmp_path, {}, lambda argv, timeout: CommandResult(0, f"{machine}\n"))
    assert read_install_info(host, "/opt/cann")["arch"] == machine
    assert read_install_info(host, "") == {}


def test_nnal_of_the_environment_must_exist(tmp_path: Path) -> None:
    usual = "/usr/local/Ascend/nnal/atb/latest/atb/cxx_abi_1"
    (tmp_path / "opt/atb/atb/cxx_abi_0").mkdir(parents=True)
    homes = {"": usual, "/opt/atb/atb/cxx_abi_0": "/opt/atb/atb/cxx_abi_0", "/opt/none": usual}
    for given, expected in homes.items():
        assert read_nnal_home(Host(tmp_path, {"ATB_HOME_PATH": given})) == expected
