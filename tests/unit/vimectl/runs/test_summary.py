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


def test_a_summary_has_its_room_on_a_full_disk(full_disk: Path) -> None:
    summaries.reserve(full_disk)
    fill(full_disk)
    assert summaries.write(full_disk, {"reason": "no room"})
    assert json.loads((full_disk / "summary.json").read_text()) == {"reason": "no room"}
    assert sorted(os.listdir(full_disk)) == ["everything", "summary.json"]


def test_a_summary_that_does_not_fit_is_told_instead(
    full_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(full_disk)
    assert not summaries.write(full_disk, {"reason": "no room"})
    assert '"reason": "no room"' in capsys.readouterr().err
    assert not (full_disk / "summary.json").exists()


def test_the_last_checkpoint_is_the_newest_whole_one(tmp_path: Path) -> None:
    assert summaries.last_checkpoint(tmp_path) is None
    for name in ("step-000002", "step-000010", "step-000011.partial", "final"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "manifest.json").touch()
    (tmp_path / "checkpoints" / "step-000012").mkdir()
    assert summaries.last_checkpoint(tmp_path) == "checkpoints/step-000010"
