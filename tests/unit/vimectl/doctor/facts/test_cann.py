from __future__ import annotations

from pathlib import Path

from vimectl.doctor.facts.cann import read_toolkit
from vimectl.util.host import Host


def test_toolkit_of_the_environment_goes_before_the_usual_places(tmp_path: Path) -> None:
    (tmp_path / "usr/local/Ascend/cann-9.0.0").mkdir(parents=True)
    (tmp_path / "usr/local/Ascend/cann").symlink_to("/usr/local/Ascend/cann-9.0.0")
    default = read_toolkit(Host(tmp_path, {}))
    assert default is not None
    assert default.home == "/usr/local/Ascend/cann"
    host = Host(tmp_path, {"ASCEND_HOME_PATH": "/opt/cann"})
    assert read_toolkit(host) is None
    (tmp_path / "opt/cann/x86_64-linux").mkdir(parents=True)
    info = tmp_path / "opt/cann/x86_64-linux/ascend_toolkit_install.info"
    info.write_text("package_name=Ascend-cann-toolkit\nversion=8.3.RC2\n")
    found = read_toolkit(host)
    assert found is not None
    assert (found.home, found.version, found.kernels) == ("/opt/cann", "8.3.RC2", ())
