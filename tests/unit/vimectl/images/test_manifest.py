"""The manifest of a source folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.images import manifest
from vimectl.util.directory_tree import DirectoryTree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no manifest\.json, so the folder is incomplete"),
        ("{", "cannot be read"),
        ("[]", "not the manifest of a source folder"),
        ('{"schema": "vimectl.offline/2"}', "'schema'"),
    ],
)
def test_missing_or_invalid_manifest_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / manifest.FILE).write_text(text)
    with DirectoryTree(tmp_path) as tree, pytest.raises(UsageError, match=message):
        manifest.read_manifest(tree)
