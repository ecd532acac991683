from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from harness.git import commit
from harness.patches.toy_packages import unpack
from vimectl.patches import target


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
