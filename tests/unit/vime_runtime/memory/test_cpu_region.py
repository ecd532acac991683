from __future__ import annotations

import errno
import mmap
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from vime_runtime.memory import cpu_region
from vime_runtime.memory.cpu_region import HostRegion
from vime_runtime.memory.region import Residency

from tests.unit.vime_runtime.memory.conftest import lazily_free_bytes, take_free_pages

MIB = 1024**2


def test_the_backing_file_has_no_name(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.ones(MIB)
    region.pause()
    assert list(disk.iterdir()) == []
    region.resume()
    assert tensor.sum().item() == MIB


@contextmanager
def file_size_limit(nbytes: int) -> Iterator[None]:
    """Nobody can fill a disk for a test; to write(2) a limit on file sizes looks much the same."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_costs_no_contents(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.arange(4 * MIB)
    with (
        file_size_limit(8 * MIB),
        pytest.raises(OSError, match=f"cannot keep {tensor.nbytes} bytes") as caught,
    ):
        region.pause()
    assert caught.value.filename == str(disk)
    assert not region.paused
    assert torch.equal(tensor, torch.arange(4 * MIB))
    region.pause()
    region.resume()
    assert torch.equal(tensor, torch.arange(4 * MIB))


def test_discarding_gives_memory_back(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.ones(8 * MIB)
    with file_written() as nbytes:
        region.discard()
    assert nbytes() == 0
    assert region.residency().resident == 0
    region.resume()
    assert set(tensor.unique().tolist()) <= {0.0, 1.0}
    tensor.fill_(3)
    region.pause()
    region.resume()
    assert tensor.sum().item() == 3 * 8 * MIB


def test_what_is_spare_is_so_by_the_kernels_count_too(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.ones(8 * MIB)
    active = region.residency()
    assert active.spare == 0
    region.pause()
    paused = region.residency()
    assert paused == Residency(active.mapped, 0, spare=active.resident)
    assert 0.95 * paused.spare <= lazily_free_bytes(tensor.data_ptr(), tensor.nbytes) <= paused.spare
    region.resume()
    assert region.residency() == active


def test_what_the_kernel_took_meanwhile_comes_back(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        gradients, weights = torch.zeros(8 * MIB), torch.arange(8 * MIB)
    region.pause()
    take_free_pages(gradients.data_ptr(), gradients.nbytes)
    take_free_pages(weights.data_ptr(), weights.nbytes)
    assert region.residency().resident == 0
    assert region.residency().spare <= 0.05 * weights.nbytes
    with file_read() as nbytes:
        region.resume()
    assert nbytes() >= 0.95 * weights.nbytes
    assert not gradients.any()
    assert torch.equal(weights, torch.arange(8 * MIB))


# Words that could pass for a mark, or for a page that was taken.
@pytest.mark.parametrize("value", [-1, 0, 1])
def test_of_what_the_kernel_took_in_part_no_more_than_a_piece_is_read(disk: Path, value: int) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.full((4 * MIB,), value)
    tensor[5 :: mmap.PAGESIZE // 8] = 7  # no piece is all zeros
    expected = tensor.clone()
    region.pause()
    take_free_pages(tensor.data_ptr() + 10 * MIB, 5 * mmap.PAGESIZE)
    assert 0 < region.residency().spare < tensor.nbytes
    with file_read() as nbytes:
        region.resume()
    assert torch.equal(tensor, expected)
    assert cpu_region.PIECE <= nbytes() < 2 * cpu_region.PIECE


def test_what_the_kernel_left_is_not_read(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.arange(8 * MIB)
    region.pause()
    with file_read() as nbytes:
        region.resume()
    assert nbytes() < MIB
    assert torch.equal(tensor, torch.arange(8 * MIB))


def test_where_pages_can_only_go_at_once_all_are_read(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_FREE", 1000)  # the kernel answers EINVAL
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.arange(8 * MIB)
    region.pause()
    assert region.residency().spare == 0
    with file_read() as nbytes:
        region.resume()
    assert nbytes() >= tensor.nbytes
    assert torch.equal(tensor, torch.arange(8 * MIB))


@pytest.mark.parametrize("value", [-1, 1])
def test_reading_that_fails_can_be_tried_again(
    disk: Path, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.full((8 * MIB,), value)
    region.pause()
    take_free_pages(tensor.data_ptr(), tensor.nbytes)
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", broken)
        with pytest.raises(OSError, match="Input/output error"):
            region.resume()
    assert region.paused
    region.resume()
    assert (tensor == value).all()


def broken(file: int, buffers: list[memoryview], offset: int) -> int:
    """A disk that fails."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_a_resumed_region_holds_the_kernel_leaves_alone(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        gradients, weights = torch.zeros(8 * MIB), torch.arange(8 * MIB)
    region.pause()
    region.resume()
    assert lazily_free_bytes(weights.data_ptr(), weights.nbytes) <= gradients.nbytes
    take_free_pages(gradients.data_ptr(), gradients.nbytes)
    take_free_pages(weights.data_ptr(), weights.nbytes)
    assert region.residency().resident >= weights.nbytes
    assert not gradients.any()
    assert torch.equal(weights, torch.arange(8 * MIB))


def test_zeros_are_not_written_and_come_back_as_zeros(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        gradients, weights = torch.zeros(16 * MIB), torch.full((4 * MIB,), 7.0)
    weights[0] = 0
    with file_written() as nbytes:
        region.pause()
    assert weights.nbytes <= nbytes() < weights.nbytes + gradients.nbytes // 4
    region.resume()
    assert not gradients.any()
    assert weights[0] == 0
    assert torch.equal(weights[1:], torch.full((4 * MIB - 1,), 7.0))


def test_a_pause_needs_no_page_cache(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_region, "uncache", lambda file: None)
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.ones(4 * MIB)
    region.pause()
    assert region.residency().resident == 0
    region.resume()
    assert tensor.sum().item() == tensor.numel()


def test_where_it_does_none_of_it_is_left_after_waking(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_region, "bypass_cache", lambda file: None)
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.ones(4 * MIB)
    active = region.residency().resident
    region.pause()
    region.resume()
    assert tensor.sum().item() == tensor.numel()
    assert region.residency().resident <= active


def test_blocks_that_share_a_page_come_back(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        blocks = [torch.full((100,), float(i)) for i in range(100)]
    del blocks[1::3]  # many runs of live blocks, some in one page
    expected = [block.clone() for block in blocks]
    with file_written() as nbytes:
        region.pause()
    written = nbytes()
    assert written % mmap.PAGESIZE == 0
    assert written <= 100 * 512 + 2 * mmap.PAGESIZE  # no page twice
    region.resume()
    assert all(torch.equal(block, copy) for block, copy in zip(blocks, expected, strict=True))


@contextmanager
def file_written() -> Iterator[Callable[[], int]]:
    """Count the bytes that this process hands to write(2) and its like."""
    before = moved("wchar")
    yield lambda: moved("wchar") - before


@contextmanager
def file_read() -> Iterator[Callable[[], int]]:
    """Count the bytes that this process gets from read(2) and its like."""
    before = moved("rchar")
    yield lambda: moved("rchar") - before


def moved(counter: str) -> int:
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(counter))
