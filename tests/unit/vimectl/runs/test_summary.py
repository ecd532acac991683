from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.needs import mounted_disk
from vimectl.runs import summary as summaries


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; fill it with ``fill``."""
    with mounted_disk(tmp_path / "disk", size="256k") as disk:
        yield disk


def fill(disk: Path) -> None:
    with (disk / "everything").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


def test_reserved_space_holds_the_summary_on_a_full_disk(full_disk: Path) -> None:
    summaries.reserve(full_disk)
    fill(full_disk)
    assert summaries.write(full_disk, {"reason": "no room"})
    assert json.loads((full_disk / "summary.json").read_text()) == {"reason": "no room"}
    assert sorted(os.listdir(full_disk)) == ["everything", "summary.json"]


def test_summary_without_space_is_printed(full_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(full_disk)
    assert not summaries.write(full_disk, {"reason": "no room"})
    assert '"reason": "no room"' in capsys.readouterr().err
    assert not (full_disk / "summary.json").exists()
