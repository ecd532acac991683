from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from vime_runtime.memory.arena import ALIGNMENT, AllocateInArena, Arena

from harness.tolerances import of_sum


def live(arena: Arena) -> list[tuple[int, int]]:
    return list(arena.live_ranges())


def test_blocks_are_aligned_and_freed_with_their_last_reference() -> None:
    arena = Arena()
    blocks = [arena.allocate(1), arena.allocate(100)]
    assert live(arena) == [(0, 3 * ALIGNMENT)]
    view = memoryview(blocks[1])
    del blocks[1]
    assert live(arena) == [(0, 3 * ALIGNMENT)]
    del view
    assert live(arena) == [(0, ALIGNMENT)]
    del blocks[0]
    assert live(arena) == []


def test_free_neighbors_merge_and_are_reused() -> None:
    arena = Arena()
    a, b, c, d = (arena.allocate(ALIGNMENT) for _ in range(4))
    del a, c
    assert live(arena) == [(ALIGNMENT, ALIGNMENT), (3 * ALIGNMENT, ALIGNMENT)]
    del b  # merges with the free block before and the one after it
    big = arena.allocate(3 * ALIGNMENT)
    assert live(arena) == [(0, 4 * ALIGNMENT)]
    del big, d
    assert live(arena) == []


def test_an_allocation_beyond_the_reserved_addresses_fails() -> None:
    arena = Arena()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(MemoryError, match="used up"):
        arena.allocate(2 * memory + 1)
    assert arena.allocate(1) is not None


def test_large_blocks_use_huge_pages_if_the_kernel_has_them() -> None:
    arena = Arena()
    _block = arena.allocate(16 * 1024**2)
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists() and "[never]" not in setting.read_text():
        # The flag of the mapping, proc_pid_smaps(5). It does not depend on whether huge pages were available.
        assert "hg" in vm_flags(arena.base)


def vm_flags(address: int) -> list[str]:
    """Return the VmFlags of the mapping that begins at an address."""
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    (mapping,) = (each for each in maps if each.startswith(f"{address:x}-"))
    return re.findall(r"^VmFlags: (.*)$", mapping, re.MULTILINE)[0].split()


def test_results_of_operators_are_in_the_arena() -> None:
    arena = Arena()
    outside = torch.randn(4, 6)
    with AllocateInArena(arena):
        made = [
            torch.empty(3),
            torch.zeros(2, 3, dtype=torch.bfloat16),
            torch.randn(5),
            torch.arange(7),
            torch.empty_strided((2, 3), (1, 2)),
            outside @ outside.T,
            outside.T.contiguous(),
            torch.nn.Linear(3, 4).weight,
            *torch.linalg.qr(outside),
        ]
    assert all(tensor.data_ptr() in arena for tensor in made)
    # Another address, another alignment: the product may be computed in another order.
    torch.testing.assert_close(made[5], outside @ outside.T, **of_sum(torch.float32, 6, magnitude=10.0))
    assert torch.equal(made[6], outside.T)
    assert made[4].stride() == (1, 2)
    assert torch.equal(made[1], torch.zeros(2, 3, dtype=torch.bfloat16))


def test_views_and_in_place_results_stay_where_they_are() -> None:
    arena = Arena()
    outside = torch.zeros(4, 6)
    with AllocateInArena(arena):
        view = outside[1:3]
        outside.add_(1)
        torch.add(outside, 1, out=outside)
    assert view.data_ptr() not in arena
    assert view.untyped_storage().data_ptr() == outside.untyped_storage().data_ptr()
    assert outside.sum().item() == 2 * outside.numel()


def test_results_that_share_a_storage_still_share_it() -> None:
    arena = Arena()
    with AllocateInArena(arena):
        parts = torch.randn(6, 2).split(2)
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
    assert all(part.data_ptr() in arena for part in parts)


def test_temporaries_reuse_addresses() -> None:
    arena = Arena()
    with AllocateInArena(arena):
        for _ in range(50):
            torch.randn(1_000_000).exp().sum()
    assert live(arena) == []
    assert arena.resident_bytes() < 50_000_000
