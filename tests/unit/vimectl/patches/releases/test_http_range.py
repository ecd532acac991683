from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement

from harness.patches.index_server import Index, make_wheel
from vimectl.patches.releases.download import BLOCK, HttpRangeFile, NoRanges
from vimectl.patches.releases.pip_config import PipConfig
from vimectl.patches.releases.web import Web

NAME = "toy-1.0-py3-none-any.whl"


@pytest.fixture
def opened(index: Index, tmp_path: Path) -> Callable[[], HttpRangeFile]:
    index.files[NAME] = make_wheel()
    url = f"http://127.0.0.1:{index.port}/files/{NAME}"
    return lambda: HttpRangeFile(Web(PipConfig(timeout=5.0)), url, None, tmp_path / "blocks")


def test_any_range_is_read(index: Index, opened: Callable[[], HttpRangeFile]) -> None:
    whole, file = index.files[NAME], opened()
    assert file.size == len(whole)
    for start, length in [
        (0, 1),
        (BLOCK - 1, 2),
        (3 * BLOCK + 5, 2 * BLOCK),
        (len(whole) - 3, 99),
        (9**9, 1),
    ]:
        file.seek(start)
        assert file.read(length) == whole[start : start + length]
    assert file.seek(-2, 2) == len(whole) - 2


def test_adjacent_blocks_are_one_request(index: Index, opened: Callable[[], HttpRangeFile]) -> None:
    file = opened()
    file.prefetch(2 * BLOCK, 1)
    file.prefetch(0, 5 * BLOCK)
    assert index.requests[1:] == [
        f"/files/{NAME} bytes={2 * BLOCK}-{3 * BLOCK - 1}",
        f"/files/{NAME} bytes=0-{2 * BLOCK - 1}",
        f"/files/{NAME} bytes={3 * BLOCK}-{5 * BLOCK - 1}",
    ]


def test_damaged_block_is_fetched_again(
    index: Index, opened: Callable[[], HttpRangeFile], tmp_path: Path
) -> None:
    opened().prefetch(0, 1)
    (block,) = (tmp_path / "blocks").iterdir()
    block.write_bytes(b"x" * BLOCK)
    assert opened().read(9) == index.files[NAME][:9]
    assert [path.name for path in (tmp_path / "blocks").iterdir()] == [block.name]


def test_broken_response_is_resumed(index: Index, opened: Callable[[], HttpRangeFile]) -> None:
    file = opened()
    index.cuts = [1000, 0]
    assert file.read(BLOCK) == index.files[NAME][:BLOCK]
    assert index.requests[-1] == f"/files/{NAME} bytes=1000-{BLOCK - 1}"
    index.cuts = [1, 1, 1]
    with pytest.raises(MissingRequirement, match="breaks off"):
        file.read(1)


def test_server_without_ranges_or_with_another_file_is_detected(
    index: Index, opened: Callable[[], HttpRangeFile]
) -> None:
    file = opened()
    index.files[NAME] += b"longer"
    with pytest.raises(NoRanges):
        file.read(1)
    index.ranges = False
    with pytest.raises(NoRanges):
        opened()
