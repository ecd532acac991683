from __future__ import annotations

import os
from pathlib import Path

import pytest

from vimectl.errors import BadInput
from vimectl.recipe import runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for age, name in enumerate(("tiny-3", "tiny-1", "tiny-2")):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / runs.RUN_FILE).touch()
        os.utime(run / runs.RUN_FILE, (1000 + age, 1000 + age))
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def test_lists_run_directories_oldest_first(folder: Path) -> None:
    assert list(runs.kept_in(folder)) == ["tiny-3", "tiny-1", "tiny-2"]


def test_finds_by_path_by_name_and_the_last(folder: Path) -> None:
    assert runs.find(str(folder / "tiny-1"), folder) == folder / "tiny-1"
    assert runs.find("tiny-1", folder) == folder / "tiny-1"
    assert runs.find("last", folder) == folder / "tiny-2"


def test_an_unknown_run_is_refused_with_the_nearest(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"unknown run 'tiny-4'. Did you mean tiny-"):
        runs.find("tiny-4", folder)
    with pytest.raises(BadInput) as caught:
        runs.find("last", tmp_path / "none")
    assert "there are no runs in" in caught.value.hint
