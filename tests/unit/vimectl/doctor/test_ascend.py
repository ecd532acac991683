from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor import ascend
from vimectl.util.host import Host


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
def test_branches_are_listed_one_by_one_or_as_ranges(listed: str, version: str, accepted: bool) -> None:
    assert ascend.accepts(listed, version) is accepted


def test_leading_numbers_of_a_version() -> None:
    assert ascend.numbers("7.8.0.6.201")[:3] == (7, 8, 0)
    assert ascend.numbers("25.0.rc1.1") == (25, 0)
    assert ascend.numbers("none") == ()


def test_toolkit_is_where_a_sourced_shell_says_else_in_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / "usr/local/Ascend/cann-9.0.0").mkdir(parents=True)
    (tmp_path / "usr/local/Ascend/cann").symlink_to("/usr/local/Ascend/cann-9.0.0")
    assert ascend.toolkit(Host(tmp_path, {})) == "/usr/local/Ascend/cann"
    assert ascend.toolkit(Host(tmp_path, {"ASCEND_HOME_PATH": "/opt/cann"})) is None
    (tmp_path / "opt/cann/x86_64-linux").mkdir(parents=True)
    info = tmp_path / "opt/cann/x86_64-linux/ascend_toolkit_install.info"
    info.write_text("package_name=Ascend-cann-toolkit\nversion=8.3.RC2\n")
    host = Host(tmp_path, {"ASCEND_HOME_PATH": "/opt/cann"})
    assert ascend.toolkit_info(host, "/opt/cann", "toolkit")["version"] == "8.3.RC2"


def test_atb_says_its_version_above_its_home(tmp_path: Path) -> None:
    file = tmp_path / "opt/nnal/atb/8.2.RC1/version.info"
    file.parent.mkdir(parents=True)
    file.write_text("    Ascend-cann-atb : 8.2.RC1\n    Ascend-cann-atb Version : 8.2.RC1.B150\n")
    host = Host(tmp_path, {"ATB_HOME_PATH": "/opt/nnal/atb/8.2.RC1/atb/cxx_abi_0"})
    assert ascend.atb_version(host) == ("/opt/nnal/atb/8.2.RC1", "8.2.RC1")
    assert ascend.atb_version(Host(tmp_path, {})) == ("/usr/local/Ascend/nnal/atb/latest", None)
