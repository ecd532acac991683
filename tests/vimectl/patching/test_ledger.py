from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.errors import BadInput
from vimectl.patching import ledger
from vimectl.patching.blobs import blob_id

ENTRY = ledger.Entry(
    series="toy/1.0",
    applied="2026-01-01T00:00:00+00:00",
    vimectl="0.1.0",
    files=(ledger.File("toy/a.py", "0" * 40, None),),
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert ledger.read(tmp_path) == {}
    assert ledger.dump({}) is None
    ledger.folder(tmp_path).mkdir()
    ledger.ledger_path(tmp_path).write_bytes(ledger.dump({"toy": ENTRY}) or b"")
    assert ledger.read(tmp_path) == {"toy": ENTRY}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "other/1", "packages": {}}'])
def test_a_file_that_is_no_ledger_is_named_with_the_mend(tmp_path: Path, text: str) -> None:
    ledger.folder(tmp_path).mkdir()
    ledger.ledger_path(tmp_path).write_text(text)
    with pytest.raises(BadInput, match="not a ledger") as caught:
        ledger.read(tmp_path)
    assert "remove it" in caught.value.hint


def test_an_original_that_was_tampered_with_is_none(tmp_path: Path) -> None:
    blob = blob_id(b"content")
    path = ledger.original_path(tmp_path, blob)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    assert ledger.original(tmp_path, blob) == b"content"
    path.write_bytes(b"other")
    assert ledger.original(tmp_path, blob) is None
