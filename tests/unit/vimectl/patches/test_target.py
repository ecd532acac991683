from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from harness.git import commit
from harness.patches.toy_packages import unpack
from harness.wheels import write_wheel
from vimectl.patches import target
from vimectl.patches.target import TargetFiles


def test_distribution_with_another_name_is_found_by_record(location: Path) -> None:
    found = target.find_at(location, "toy", "toy")
    assert (found.version, found.kind, found.location) == ("1.0", "site-packages", location)
    assert found.record == location / "toy_cpu-1.0.dist-info" / "RECORD"


def test_unpacked_wheel_is_a_tree(location: Path) -> None:
    (location / "toy_cpu-1.0.dist-info" / "INSTALLER").unlink()
    found = target.find_at(location, "toy", "toy")
    assert (found.kind, found.record is None) == ("tree", False)


def test_version_of_an_unpacked_source_archive(location: Path) -> None:
    shutil.rmtree(location / "toy_cpu-1.0.dist-info")
    (location / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 3.0\n")
    found = target.find_at(location, "toy", "toy")
    assert (found.version, found.kind, found.record) == ("3.0", "tree", None)


def test_version_of_a_checkout_without_metadata_is_its_commit(location: Path) -> None:
    shutil.rmtree(location / "toy_cpu-1.0.dist-info")
    head = commit(location)
    assert target.find_at(location, "toy", "toy").version == head
    found = target.find_at(location, "toy", "toy", version="2.0")
    assert (found.version, found.kind) == ("2.0", "git")


def test_folder_named_like_a_module_does_not_matter(location: Path) -> None:
    shutil.copytree(location / "toy_cpu-1.0.dist-info", location / "toy-1.0.dist-info")
    (location / "toy" / "x.py").mkdir()
    assert target.find_at(location, "toy", "toy").version == "1.0"


def test_directory_without_the_package_is_no_target(tmp_path: Path) -> None:
    assert target.find_at(tmp_path, "toy", "toy") is None
    assert target.find_installed("toy", "toy") is None


def test_installed_package_is_found_without_importing_it(
    location: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(location)
    found = target.find_installed("toy", "toy")
    assert found.location == location
    assert "toy" not in sys.modules


def test_editable_install_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, site = unpack(tmp_path / "a checkout"), tmp_path / "site"
    (source / "toy_cpu-1.0.dist-info").rename(tmp_path / "elsewhere")
    metadata = site / "toy-1.1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.1\n")
    origin = {"url": source.as_uri(), "dir_info": {"editable": True}}
    (metadata / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(source)
    found = target.find_installed("toy", "toy")
    assert (found.version, found.kind, found.location) == ("1.1", "editable", source)


@pytest.mark.parametrize(
    ("files", "module"),
    [
        (("spread/part/a.py", "other/__init__.py"), ""),  # a namespace package and a second module
        (("spread/part/a.py",), "spread/part"),
        (("single.py",), ""),
        (("single.py",), "single"),
        (("compiled.cpython-311-x86_64-linux-gnu.so", "data/table.json"), ""),
    ],
)
def test_any_kind_of_package_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], module: str
) -> None:
    wheel = write_wheel(tmp_path, "any_kind", "2.0", dict.fromkeys(files, b"content"))
    site = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "any_kind-2.0.dist-info/INSTALLER").write_text("pip\n")
    monkeypatch.syspath_prepend(site)
    for found in (
        target.find_at(site, "any-kind", module),
        target.find_installed("any-kind", module),
        target.find_at(wheel, "any-kind", module),
    ):
        assert (found.version, found.location.name) in (("2.0", "site-packages"), ("2.0", wheel.name))


def test_work_tree_is_found_by_the_files_that_patches_touch(tmp_path: Path) -> None:
    (tmp_path / "Tree/src/pkg").mkdir(parents=True)
    (tmp_path / "Tree/src/pkg/a.py").touch()
    (tmp_path / "Tree/docs").mkdir()
    (tmp_path / "Tree/docs/a.md").touch()
    commit(tmp_path / "Tree")
    for paths, location in ((["src/pkg/a.py", "docs/a.md"], "Tree"), (["pkg/a.py"], "src"), ([], "Tree")):
        found = target.find_at(tmp_path / "Tree", "tree", paths=paths)
        assert (found.kind, found.location.name) == ("git", location)


def test_link_outside_the_target_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "link").symlink_to("secret")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "own").symlink_to("link")
    (tmp_path / "site" / "folder").symlink_to("../outside")
    with TargetFiles(tmp_path / "site") as files:
        assert files.link("own") == b"link"
        assert files.link("folder/link") is None
        # Another process puts a link in the place of the target itself: the opened folder remains.
        (tmp_path / "site").rename(tmp_path / "moved")
        (tmp_path / "site").symlink_to("outside")
        assert files.link("own") == b"link"
        assert files.link("link") is None
