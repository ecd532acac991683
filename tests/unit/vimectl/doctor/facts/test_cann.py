from __future__ import annotations

from pathlib import Path

from vimectl.doctor.facts.cann import read_home, read_install_info
from vimectl.util.host import Host


def test_toolkit_of_the_environment_goes_before_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / "usr/local/Ascend/cann-9.0.0").mkdir(parents=True)
    (tmp_path / "usr/local/Ascend/cann").symlink_to("/usr/local/Ascend/cann-9.0.0")
    assert read_home(Host(tmp_path, {})) == "/usr/local/Ascend/cann"
    host = Host(tmp_path, {"ASCEND_HOME_PATH": "/opt/cann"})
    assert read_home(host) == ""
    (tmp_path / "opt/cann/x86_64-linux").mkdir(parents=True)
    info = tmp_path / "opt/cann/x86_64-linux/ascend_toolkit_install.info"
    info.write_text("package_name=Ascend-cann-toolkit\nversion=8.3.RC2\n")
    assert read_home(host) == "/opt/cann"
    assert read_install_info(host, "/opt/cann")["version"] == "8.3.RC2"
