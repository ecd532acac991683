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
from vime_runtime.memory.cpu_region import CpuRegion
from vime_runtime.memory.region import MemoryUsage

from tests.unit.vime_runtime.memory.conftest import lazily_free_bytes, reclaim_pages

MIB = 1024**2


@pytest.fixture
def region(disk: Path) -> CpuRegion:
    return CpuRegion(disk)


def arange(region: CpuRegion) -> torch.Tensor:
    """Return 64 MiB in the region."""
    with region.allocating():
        return torch.arange(8 * MIB)


def zeros_and_arange(region: CpuRegion) -> tuple[torch.Tensor, torch.Tensor]:
    """Return 32 MiB of zeros and 64 MiB of other numbers in the region."""
    with region.allocating():
        return torch.zeros(8 * MIB), torch.arange(8 * MIB)


@contextmanager
def file_size_limit(nbytes: int) -> Iterator[None]:
    """Limit file sizes: to write(2) this is much like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_loses_no_contents(region: CpuRegion, disk: Path) -> None:
    tensor = arange(region)
    with (
        file_size_limit(8 * MIB),
        pytest.raises(OSError, match=f"cannot offload {tensor.nbytes} bytes") as caught,
    ):
        region.pause()
    assert caught.value.filename == str(disk)
    assert not region.offloaded
    assert torch.equal(tensor, torch.arange(8 * MIB))
    region.pause()
    region.resume()
    assert torch.equal(tensor, torch.arange(8 * MIB))


def test_discard_frees_memory_without_writing(region: CpuRegion) -> None:
    with region.allocating():
        tensor = torch.ones(8 * MIB)
    with moved("wchar") as nbytes:
        region.discard()
    assert nbytes() == 0
    assert region.memory_usage().resident == 0
    region.resume()
    assert set(tensor.unique().tolist()) <= {0.0, 1.0}
    tensor.fill_(3)
    region.pause()
    region.resume()
    assert tensor.sum().item() == 3 * 8 * MIB


def test_reclaimable_memory_agrees_with_the_kernel(region: CpuRegion) -> None:
    tensor = arange(region)
    active = region.memory_usage()
    assert active.reclaimable == 0
    region.pause()
    offloaded = region.memory_usage()
    assert offloaded == MemoryUsage(0, reclaimable=active.resident)
    lazily_free = lazily_free_bytes(tensor.data_ptr(), tensor.nbytes)
    assert 0.95 * offloaded.reclaimable <= lazily_free <= offloaded.reclaimable
    region.resume()
    assert region.memory_usage() == active


@pytest.mark.parametrize("reclaimed", ["nothing", "everything", "at once"])
def test_only_what_the_kernel_reclaimed_is_read(
    region: CpuRegion, disk: Path, monkeypatch: pytest.MonkeyPatch, reclaimed: str
) -> None:
    if reclaimed == "at once":
        monkeypatch.setattr(mmap, "MADV_FREE", 1000)  # the kernel answers EINVAL
    gradients, weights = zeros_and_arange(region)
    region.pause()
    assert list(disk.iterdir()) == []  # the file has no name
    if reclaimed == "everything":
        reclaim_pages(gradients.data_ptr(), gradients.nbytes)
        reclaim_pages(weights.data_ptr(), weights.nbytes)
    assert region.memory_usage().resident == 0
    assert reclaimed == "nothing" or region.memory_usage().reclaimable <= 0.05 * weights.nbytes
    with moved("rchar") as nbytes:
        region.resume()
    assert nbytes() < MIB if reclaimed == "nothing" else nbytes() >= 0.95 * weights.nbytes
    assert not gradients.any()
    assert torch.equal(weights, torch.arange(8 * MIB))


# Words that equal a mark, or the content of a reclaimed page.
@pytest.mark.parametrize("value", [-1, 0, 1])
def test_only_the_chunk_with_reclaimed_pages_is_read(region: CpuRegion, value: int) -> None:
    with region.allocating():
        tensor = torch.full((4 * MIB,), value)
    tensor[5 :: mmap.PAGESIZE // 8] = 7  # no chunk is all zeros
    expected = tensor.clone()
    region.pause()
    reclaim_pages(tensor.data_ptr() + 10 * MIB, 5 * mmap.PAGESIZE)
    assert 0 < region.memory_usage().reclaimable < tensor.nbytes
    with moved("rchar") as nbytes:
        region.resume()
    assert torch.equal(tensor, expected)
    assert cpu_region.CHUNK_BYTES <= nbytes() < 2 * cpu_region.CHUNK_BYTES


@pytest.mark.parametrize("value", [-1, 1])
def test_resume_can_be_retried_after_a_read_error(
    region: CpuRegion, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    def fail(file: int, buffers: list[memoryview], offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with region.allocating():
        tensor = torch.full((8 * MIB,), value)
    region.pause()
    reclaim_pages(tensor.data_ptr(), tensor.nbytes)
    with monkeypatch.context() as patched:
        patched.setattr(os, "preadv", fail)
        with pytest.raises(OSError, match="Input/output error"):
            region.resume()
    assert region.offloaded
    region.resume()
    assert (tensor == value).all()


def test_the_kernel_does_not_reclaim_a_resumed_region(region: CpuRegion) -> None:
    gradients, weights = zeros_and_arange(region)
    region.pause()
    region.resume()
    assert lazily_free_bytes(weights.data_ptr(), weights.nbytes) <= gradients.nbytes
    reclaim_pages(gradients.data_ptr(), gradients.nbytes)
    reclaim_pages(weights.data_ptr(), weights.nbytes)
    assert region.memory_usage().resident >= weights.nbytes
    assert not gradients.any()
    assert torch.equal(weights, torch.arange(8 * MIB))


def test_zeros_are_not_written(region: CpuRegion) -> None:
    with region.allocating():
        gradients, weights = torch.zeros(16 * MIB), torch.full((4 * MIB,), 7.0)
    weights[0] = 0
    with moved("wchar") as nbytes:
        region.pause()
    assert weights.nbytes <= nbytes() < weights.nbytes + gradients.nbytes // 4
    region.resume()
    assert not gradients.any()
    assert weights[0] == 0
    assert torch.equal(weights[1:], torch.full((4 * MIB - 1,), 7.0))


def test_direct_transfers_need_no_dropping_of_the_page_cache(
    region: CpuRegion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_region, "drop_page_cache", lambda file: None)
    tensor = arange(region)
    region.pause()
    assert region.memory_usage().resident == 0
    region.resume()
    assert torch.equal(tensor, torch.arange(8 * MIB))


def test_without_direct_access_resume_empties_the_page_cache(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_region, "bypass_page_cache", lambda file: None)
    region = CpuRegion(disk)
    tensor = arange(region)
    active = region.memory_usage().resident
    region.pause()
    region.resume()
    assert torch.equal(tensor, torch.arange(8 * MIB))
    assert region.memory_usage().resident <= active


def test_blocks_that_share_a_page_are_restored(region: CpuRegion) -> None:
    with region.allocating():
        blocks = [torch.full((100,), float(i)) for i in range(100)]
    del blocks[1::3]  # many ranges of live blocks, some in one page
    expected = [block.clone() for block in blocks]
    with moved("wchar") as nbytes:
        region.pause()
    written = nbytes()
    assert written % mmap.PAGESIZE == 0
    assert written <= 100 * 512 + 2 * mmap.PAGESIZE  # no page twice
    region.resume()
    assert all(torch.equal(block, copy) for block, copy in zip(blocks, expected, strict=True))


@contextmanager
def moved(counter: str) -> Iterator[Callable[[], int]]:
    """Count the bytes that this process passes to write(2), or gets from read(2), and similar calls."""

    def count() -> int:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(counter))

    before = count()
    yield lambda: count() - before
