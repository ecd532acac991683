"""The site-packages directories of another root: those of its PATH come first."""

from __future__ import annotations

from pathlib import Path

from vimectl.stacks.installed import distributions
from vimectl.util.host import Host, refuse_command


def test_interpreter_on_the_path_of_an_image_comes_first(tmp_path: Path) -> None:
    own, system = "opt/vimectl/env/lib/python3.11/site-packages", "usr/local/lib/python3.11/site-packages"
    (tmp_path / own / "torch-2.13.0.dist-info").mkdir(parents=True)
    (tmp_path / system / "torch-2.1.0.dist-info").mkdir(parents=True)
    image = Host(tmp_path, {"PATH": "/opt/vimectl/env/bin:/usr/local/bin:/usr/bin"}, refuse_command)
    assert [one.version for one in distributions(image)["torch"]] == ["2.13.0", "2.1.0"]
    assert [one.version for one in distributions(Host(tmp_path, {}, refuse_command))["torch"]] == ["2.1.0"]
