from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches import applied_state
from vimectl.patches.blobs import blob_id

ENTRY = applied_state.AppliedSeries(
    series="toy/1.0",
    applied="2026-01-01T00:00:00+00:00",
    vimectl="0.1.0",
    files=(applied_state.AppliedFile("toy/a.py", "0" * 40, None),),
)


def test_applied_state_round_trip(tmp_path: Path) -> None:
    assert applied_state.read(tmp_path) == {}
    assert applied_state.dump({}) is None
    applied_state.bookkeeping_folder(tmp_path).mkdir()
    applied_state.state_path(tmp_path).write_bytes(applied_state.dump({"toy": ENTRY}) or b"")
    assert applied_state.read(tmp_path) == {"toy": ENTRY}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "other/1", "packages": {}}'])
def test_foreign_state_file_is_refused_with_a_hint(tmp_path: Path, text: str) -> None:
    applied_state.bookkeeping_folder(tmp_path).mkdir()
    applied_state.state_path(tmp_path).write_text(text)
    with pytest.raises(UsageError, match="not written by this tool") as caught:
        applied_state.read(tmp_path)
    assert "remove it" in caught.value.hint


def test_damaged_original_is_ignored(tmp_path: Path) -> None:
    blob = blob_id(b"content")
    path = applied_state.original_folder(tmp_path) / blob
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    assert applied_state.original(tmp_path, blob) == b"content"
    path.write_bytes(b"other")
    assert applied_state.original(tmp_path, blob) is None
