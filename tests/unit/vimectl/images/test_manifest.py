"""Checks of a source folder against its manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.images import manifest
from vimectl.images.manifest import check_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two files and their manifest."""
    for path in ("wheels/one-1.0-py3-none-any.whl", "sources/two-0.tar.gz"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_bytes(path.encode())
    entries = [
        {
            "name": path.stem,
            "kind": "wheel",
            "reason": "needed",
            "path": path.relative_to(tmp_path).as_posix(),
            "size": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for path in sorted(tmp_path.glob("*/*"))
    ]
    document = {"schema": manifest.SCHEMA, "stack": "s", "machine": "aarch64", "python": "3.12"}
    (tmp_path / manifest.FILE).write_text(json.dumps({**document, "sources": entries}))
    return tmp_path


def test_complete_folder_passes(folder: Path) -> None:
    assert [entry.name for entry in check_folder(folder).sources] == ["two-0.tar", "one-1.0-py3-none-any"]


ARCHIVE, WHEEL = "sources/two-0.tar.gz", "wheels/one-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / ARCHIVE).unlink(), r"sources/two-0\.tar\.gz is missing"),
        (lambda folder: (folder / ARCHIVE).write_bytes(b"sou"), "has 3 bytes, expected 20"),
        (lambda folder: (folder / WHEEL).write_bytes(b"x" * 31), "wheels/one.*has sha256 .*, expected "),
        (lambda folder: (folder / "wheels/evil.whl").touch(), r"wheels/evil\.whl is not in the manifest"),
    ],
    ids=["missing", "truncated", "altered", "unlisted"],
)
def test_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(CheckFailed, match=message) as error:
        check_folder(folder)
    assert f"vimectl image vendor --stack s --machine aarch64 --offline {folder}" in error.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no manifest\.json, so the folder is incomplete"),
        ("{", "cannot be read"),
        ("[]", "not the manifest of a source folder"),
        ('{"schema": "vimectl.offline/2"}', "'schema'"),
    ],
)
def test_missing_or_invalid_manifest_is_refused(folder: Path, text: str | None, message: str) -> None:
    path = folder / manifest.FILE
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UsageError, match=message):
        check_folder(folder)
