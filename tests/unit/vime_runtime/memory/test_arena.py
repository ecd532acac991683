from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import pytest
from vime_runtime.memory.arena import ALIGNMENT, Arena

from tests.unit.vime_runtime.memory.conftest import lazily_free_bytes, take_free_pages


def runs(arena: Arena) -> list[tuple[int, int]]:
    return list(arena.live())


def test_blocks_are_aligned_and_freed_with_their_last_reference() -> None:
    arena = Arena()
    blocks = [arena.allocate(1), arena.allocate(100)]
    assert runs(arena) == [(0, 3 * ALIGNMENT)]
    view = memoryview(blocks[1])
    del blocks[1]
    assert runs(arena) == [(0, 3 * ALIGNMENT)]
    del view
    assert runs(arena) == [(0, ALIGNMENT)]
    del blocks[0]
    assert runs(arena) == []


def test_freed_neighbours_merge_and_are_used_again() -> None:
    arena = Arena()
    a, b, c, d = (arena.allocate(ALIGNMENT) for _ in range(4))
    del a, c
    assert runs(arena) == [(ALIGNMENT, ALIGNMENT), (3 * ALIGNMENT, ALIGNMENT)]
    del b  # joins the free blocks on both sides of it
    big = arena.allocate(3 * ALIGNMENT)
    assert runs(arena) == [(0, 4 * ALIGNMENT)]
    del big, d
    assert runs(arena) == []


def test_pages_that_were_given_back_stay_until_the_kernel_takes_them() -> None:
    arena = Arena()
    block = arena.allocate(16 * 1024**2)
    block[:] = b"x" * len(block)
    resident = arena.residency().resident
    assert resident >= len(block)
    assert lazily_free_bytes(arena.base, len(block)) == 0
    arena.give_back()
    few = 0.05 * resident  # pages that the CPU has yet to hand on; nobody can take those
    assert lazily_free_bytes(arena.base, len(block)) >= resident - few
    assert arena.residency().resident == resident
    take_free_pages(arena.base, len(block))
    assert arena.residency().resident <= few
    assert bytes(block).count(0) >= len(block) - few


def test_without_such_advice_pages_go_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "MADV_FREE", 1000)  # the kernel answers EINVAL
    arena = Arena()
    block = arena.allocate(1024**2)
    block[:] = b"x" * len(block)
    arena.give_back()
    assert arena.residency().resident == 0
    assert bytes(block) == bytes(len(block))


def test_more_than_the_reserved_addresses_is_refused() -> None:
    arena = Arena()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with pytest.raises(MemoryError, match="used up"):
        arena.allocate(2 * memory + 1)
    assert arena.allocate(1) is not None


def test_large_blocks_lie_in_huge_pages_where_the_kernel_has_them() -> None:
    arena = Arena()
    block = arena.allocate(16 * 1024**2)
    block[:] = b"x" * len(block)
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists() and "[never]" not in setting.read_text():
        # The kernel's flag of the mapping, proc_pid_smaps(5): whether it finds huge pages is its own affair.
        assert "hg" in flags_of(arena.base)


def flags_of(address: int) -> list[str]:
    """The VmFlags of the mapping that begins at an address."""
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    (mapping,) = (each for each in maps if each.startswith(f"{address:x}-"))
    return re.findall(r"^VmFlags: (.*)$", mapping, re.MULTILINE)[0].split()
