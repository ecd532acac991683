from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches import applied_state
from vimectl.patches.blobs import blob_id
from vimectl.patches.target_tree import FOLDER


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "other/1", "packages": {}}'])
def test_foreign_state_file_is_refused_with_a_hint(tmp_path: Path, text: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / applied_state.STATE).write_text(text)
    with pytest.raises(UsageError, match="not written by this tool") as caught:
        applied_state.read(tmp_path)
    assert "remove it" in caught.value.hint


def test_record_of_an_earlier_version_is_ignored(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / applied_state.STATE).write_text('{"schema": "vimectl.ledger/1", "packages": {"a": {}}}')
    assert applied_state.read(tmp_path) == {}


def test_damaged_object_is_ignored(tmp_path: Path) -> None:
    blob = blob_id(b"content")
    path = tmp_path / applied_state.OBJECTS / blob
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    assert applied_state.read_object(tmp_path, blob) == b"content"
    path.write_bytes(b"other")
    assert applied_state.read_object(tmp_path, blob) is None
