from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
import torch
from vime_runtime.spec import atomic_io


def test_a_record_has_the_digest_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    record = atomic_io.write_file(path, lambda file: torch.save({"a": torch.arange(1000)}, file))
    assert record == atomic_io.file_record(path)
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert torch.load(path, weights_only=True)["a"][7] == 7


def test_a_disk_error_names_the_file_despite_the_library_that_writes(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        atomic_io.write_file(
            small_disk / "x.pt", lambda file: torch.save({"a": torch.zeros(2_000_000)}, file)
        )
    assert caught.value.filename == str(small_disk / "x.pt")


def test_a_text_is_replaced_by_a_rename(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    inode = os.stat(path).st_ino
    atomic_io.write_text_atomically(path, "new")
    assert path.read_text() == "new"
    assert os.stat(path).st_ino != inode
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_replacement_leaves_the_old_content(small_disk: Path) -> None:
    path = small_disk / "x.json"
    path.write_text("old")
    with pytest.raises(OSError, match="No space left on device"):
        atomic_io.write_bytes_atomically(path, bytes(10_000_000))
    assert [(p.name, p.read_text()) for p in small_disk.iterdir()] == [("x.json", "old")]
