from __future__ import annotations

import errno
import threading
from pathlib import Path
from random import Random

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from harness.patches.index_server import Index
from vimectl.releases import download
from vimectl.releases.index import ReleaseFile
from vimectl.releases.pip_config import PipConfig
from vimectl.releases.web import Web

NAME = "toy-1.0.tar.gz"
DATA = Random(1).randbytes(3 << 20)


def fetch(index: Index, folder: Path, hashed: bool = True, seen: list[tuple[int, int]] | None = None) -> Path:
    hashes = {"sha256": index.sha256(NAME)} if hashed else {}
    file = ReleaseFile(NAME, f"http://127.0.0.1:{index.port}/files/{NAME}", "1.0", hashes=hashes)
    seen = [] if seen is None else seen
    return download.download_file(
        file, folder, Web(PipConfig(timeout=5.0)), lambda now: seen.append((now.done, now.total))
    )


@pytest.fixture(autouse=True)
def served(index: Index) -> None:
    index.files[NAME] = DATA


@pytest.mark.parametrize("hashed", [True, False])
def test_file_is_downloaded_once_and_again_when_damaged(index: Index, tmp_path: Path, hashed: bool) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch(index, tmp_path, hashed, seen)
    assert path.read_bytes() == DATA
    assert (seen[0], seen[-1]) == ((0, 3), (3, 3))
    fetch(index, tmp_path, hashed)
    assert len(index.requests) == 1
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    assert (fetch(index, tmp_path, hashed).read_bytes() == DATA) is hashed


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_connection_is_resumed(index: Index, tmp_path: Path, ranges: bool) -> None:
    index.ranges, index.cuts = ranges, [100_000, 70_000]
    assert fetch(index, tmp_path).read_bytes() == DATA
    if ranges:
        assert index.requests == [f"/files/{NAME}{r}" for r in ("", " bytes=99999-", " bytes=169998-")]


def test_connection_may_break_often_while_it_makes_progress(index: Index, tmp_path: Path) -> None:
    index.files[NAME] = Random(2).randbytes(12 << 20)
    index.cuts = [(1 << 20) + 10] * 11
    assert fetch(index, tmp_path).read_bytes() == index.files[NAME]
    assert len(index.requests) == 12


def test_next_command_resumes_the_download(index: Index, tmp_path: Path) -> None:
    index.cuts = [100_000, 0, 0, 0, 0]
    with pytest.raises(MissingRequirement, match="breaks off"):
        fetch(index, tmp_path)
    assert not (tmp_path / NAME).exists()
    assert fetch(index, tmp_path).read_bytes() == DATA
    assert " bytes=9999" in index.requests[-1]


def test_damaged_partial_file_is_downloaded_again(index: Index, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 1000)
    assert fetch(index, tmp_path).read_bytes() == DATA
    assert index.requests == [f"/files/{NAME}{r}" for r in (" bytes=999-", "")]


def test_wrong_digest_is_refused(index: Index, tmp_path: Path) -> None:
    index.stated[NAME] = "0" * 64
    with pytest.raises(CheckFailed, match=rf"{NAME}: found sha256 [0-9a-f]{{64}}, expected 0000"):
        fetch(index, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {".lock", "cache"}


def test_only_one_of_several_processes_downloads(index: Index, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fetch, args=(index, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.requests) == 1
    assert (tmp_path / NAME).read_bytes() == DATA


def test_full_disk_is_reported(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_receive", full)
    with pytest.raises(MissingRequirement, match="no space left") as error:
        fetch(index, tmp_path)
    assert "XDG_CACHE_HOME" in error.value.hint
