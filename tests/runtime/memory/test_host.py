from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from vime_runtime.memory.host import HostRegion

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


def test_discarding_gives_memory_back_and_zeros(disk: Path) -> None:
    region = HostRegion(disk)
    with region.allocating():
        tensor = torch.ones(8 * MIB)
    region.discard()
    assert region.residency().resident == 0
    region.resume()
    assert tensor.sum().item() == 0
    tensor.fill_(3)
    region.pause()
    region.resume()
    assert tensor.sum().item() == 3 * 8 * MIB
