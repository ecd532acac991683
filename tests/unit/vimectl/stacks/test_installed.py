"""The installed distributions of another root."""

from __future__ import annotations

import json
from pathlib import Path

from vimectl.stacks.installed import distributions
from vimectl.util.host import Host, refuse_command


def test_packages_are_those_of_the_first_interpreter_on_the_path_of_an_image(tmp_path: Path) -> None:
    own, system = "opt/vimectl/env/lib/python3.11/site-packages", "usr/local/lib/python3.11/site-packages"
    (tmp_path / own / "torch-2.13.0.dist-info").mkdir(parents=True)
    (tmp_path / system / "torch-2.1.0.dist-info").mkdir(parents=True)
    image = Host(tmp_path, {"PATH": "/opt/vimectl/env/bin:/usr/local/bin:/usr/bin"}, refuse_command)
    assert [one.version for one in distributions(image)["torch"]] == ["2.13.0"]
    assert [one.version for one in distributions(Host(tmp_path, {}, refuse_command))["torch"]] == ["2.1.0"]


def test_build_in_the_checkout_of_an_editable_install_is_no_second_copy(tmp_path: Path) -> None:
    site, checkout = tmp_path / "site", tmp_path / "vllm"
    info = site / "vllm-0.22.1.dist-info"
    info.mkdir(parents=True)
    (checkout / "vllm.egg-info").mkdir(parents=True)
    (checkout / "vllm.egg-info/PKG-INFO").write_text("Name: vllm\nVersion: 0.22.1.dev1\n")
    host = Host(tmp_path, {}, refuse_command, package_directories=("/site", "/vllm"))
    assert [one.version for one in distributions(host)["vllm"]] == ["0.22.1", "0.22.1.dev1"]
    stated = {"url": "file:///vllm", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(stated))
    assert [one.version for one in distributions(host)["vllm"]] == ["0.22.1"]
