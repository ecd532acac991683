from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.patches.index_server import Index, make_wheel
from vimectl.releases.download import BLOCK, HttpRangeFile
from vimectl.releases.pip_config import PipConfig
from vimectl.releases.web import NoRanges, Web

NAME = "toy-1.0-py3-none-any.whl"
Open = Callable[[], HttpRangeFile]


@pytest.fixture
def opened(index: Index, tmp_path: Path) -> Open:
    index.files[NAME] = make_wheel()
    url = f"http://127.0.0.1:{index.port}/files/{NAME}"
    return lambda: HttpRangeFile(Web(PipConfig(timeout=5.0)), url, None, tmp_path / "blocks")


def test_only_blocks_that_are_read_are_fetched_once(index: Index, opened: Open) -> None:
    whole = index.files[NAME]
    for file in (opened(), opened()):
        assert file.size == len(whole)
        for start in (BLOCK - 1, 5, len(whole) - 3, 9**9):
            file.seek(start)
            assert file.read(1) == whole[start : start + 1]
        assert file.seek(-2, 2) == len(whole) - 2
    last = len(whole) // BLOCK * BLOCK
    ranges = ["0-0", "0-0", f"0-{BLOCK - 1}", f"{last}-{len(whole) - 1}"]
    assert index.requests == [f"/files/{NAME} bytes={one}" for one in ranges]


def test_damaged_block_is_fetched_again(index: Index, opened: Open, tmp_path: Path) -> None:
    opened().read(1)
    (block,) = (tmp_path / "blocks").iterdir()
    block.write_bytes(block.read_bytes()[:-1] + b"x")
    assert opened().read(BLOCK) == index.files[NAME][:BLOCK]


def test_broken_response_is_requested_again(index: Index, opened: Open) -> None:
    file = opened()
    index.cuts = [1000, 0]
    assert file.read(BLOCK) == index.files[NAME][:BLOCK]
    file.seek(BLOCK)
    index.cuts = [1, 1, 1]
    with pytest.raises(MissingRequirement, match="breaks off"):
        file.read(1)


def test_server_without_ranges_or_with_another_file_is_detected(index: Index, opened: Open) -> None:
    file = opened()
    file.seek(file.size - 1)
    index.files[NAME] = index.files[NAME][:-1]
    with pytest.raises(NoRanges):
        file.read(1)
    index.ranges = False
    with pytest.raises(NoRanges):
        opened()
