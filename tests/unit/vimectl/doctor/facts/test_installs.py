"""Installs that were interrupted, lost files, or point to a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor.facts.installs import (
    read_editable_paths,
    read_interrupted_installs,
    read_interrupted_removals,
    read_missing_files,
)
from vimectl.doctor.facts.packages import DistributionMetadata
from vimectl.stacks.installed import InstalledDistribution
from vimectl.util.host import Host, refuse_command

SITE = "/s"
INFO = f"{SITE}/toy_pack-1.0.dist-info"
ITEM = InstalledDistribution("toy-pack", "1.0", SITE, INFO)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "s").mkdir()
    return Host(tmp_path, {}, refuse_command, package_directories=(SITE,))


def write(host: Host, **files: str) -> None:
    folder = host.root / INFO.lstrip("/")
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_installer_that_did_not_write_record_was_interrupted(host: Host, installer: str) -> None:
    write(host, METADATA="", INSTALLER=f"{installer}\n")
    assert read_interrupted_installs(host) == {"toy-pack": f"{INFO} has no RECORD"}
    write(host, RECORD="")
    assert read_interrupted_installs(host) == {}


def test_packages_of_a_linux_distribution_may_be_without_record(host: Host) -> None:
    write(host, METADATA="", INSTALLER="debian\n")
    assert read_interrupted_installs(host) == {}


def test_empty_metadata_directory_is_interrupted(host: Host) -> None:
    write(host)
    assert read_interrupted_installs(host) == {"toy-pack": f"{INFO} has no METADATA"}


def test_renamed_metadata_is_that_of_a_removal(host: Host) -> None:
    for name in ("~orch_npu-2.10.0.dist-info", "~orch_npu", "-old"):
        (host.root / "s" / name).mkdir()
    assert read_interrupted_removals(host) == {"orch-npu": f"{SITE}/~orch_npu-2.10.0.dist-info"}


def test_modules_and_libraries_of_record_are_looked_for(host: Host) -> None:
    names = ("toy/a.py", "toy/b.py", "toy/_C.abi3.so", "top.py", "toy/data.json", "toy/tests/t.py")
    outside = ("../../../bin/toy.py", "/etc/toy.py", "toy/include/x.py")
    write(host, RECORD="".join(f"{name},sha256=x,1\n" for name in (*names, *outside)))
    (host.root / "s/toy").mkdir()
    (host.root / "s/toy/b.py").touch()
    metadata = DistributionMetadata(ITEM, (), (), {}, None, 0.0)
    assert read_missing_files(host, metadata) == ["top.py", "toy/a.py", "toy/_C.abi3.so"]


@pytest.mark.parametrize(
    ("name", "text", "paths"),
    [
        ("__editable__.toy_pack-1.0.pth", "/src/toy\n", ["/src/toy"]),
        (
            "__editable___toy_pack_1_0_finder.py",
            "import sys\nMAPPING: dict[str, str] = {'toy_pack': '/src/toy/toy_pack'}\nX = '/other'\n",
            ["/src/toy/toy_pack"],
        ),
        ("_toy_pack.pth", "/src/toy/src\nimport os\n", ["/src/toy/src"]),
        ("__editable__.toy_pack-1.0.pth", "import __editable___toy_pack_1_0_finder\n", []),
        ("__editable__.other-1.0.pth", "/src/other\n", []),
        ("distutils-precedence.pth", "/src/other\n", []),
    ],
)
def test_paths_of_an_editable_install_are_read(host: Host, name: str, text: str, paths: list[str]) -> None:
    (host.root / "s" / name).write_text(text)
    assert read_editable_paths(host, ITEM) == paths


def test_directory_of_direct_url_comes_first(host: Host) -> None:
    write(host, **{"direct_url.json": '{"url": "file:///src/a%20b", "dir_info": {"editable": true}}'})
    (host.root / "s/__editable__.toy_pack-1.0.pth").write_text("/src/a b\n/src/more\n")
    assert read_editable_paths(host, ITEM) == ["/src/a b", "/src/more"]
