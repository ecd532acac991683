from __future__ import annotations

import mmap

import torch
from vime_runtime.memory.arena import Arena
from vime_runtime.memory.sentinels import Sentinels

from tests.unit.vime_runtime.memory.conftest import lazily_free_bytes, take_free_pages

SIZE = 16 * 1024**2


def given_back() -> tuple[Arena, torch.Tensor, Sentinels]:
    """Pages of an arena that count up, and that the kernel may take."""
    arena = Arena()
    tensor = torch.frombuffer(arena.allocate(SIZE), dtype=torch.int64)
    torch.arange(len(tensor), out=tensor)
    sentinels = Sentinels(arena.base, SIZE)
    arena.give_back()
    return arena, tensor, sentinels


def test_pages_that_nobody_took_are_as_they_were() -> None:
    arena, tensor, sentinels = given_back()
    assert lazily_free_bytes(arena.base, SIZE) > 0
    assert sentinels.still_there()
    assert torch.equal(tensor, torch.arange(len(tensor)))


def test_one_page_that_was_taken_is_noticed() -> None:
    arena, _, sentinels = given_back()
    resident = arena.residency().resident
    take_free_pages(arena.base + SIZE // 2, mmap.PAGESIZE)
    assert arena.residency().resident < resident
    assert not sentinels.still_there()
    assert not sentinels.still_there()


def test_from_then_on_the_kernel_leaves_them_alone() -> None:
    arena, tensor, sentinels = given_back()
    assert sentinels.still_there()
    assert lazily_free_bytes(arena.base, SIZE) == 0
    take_free_pages(arena.base, SIZE)
    assert torch.equal(tensor, torch.arange(len(tensor)))


def test_so_it_does_where_it_had_taken_some() -> None:
    arena, _, sentinels = given_back()
    take_free_pages(arena.base + SIZE // 2, mmap.PAGESIZE)
    assert not sentinels.still_there()
    assert lazily_free_bytes(arena.base, SIZE) == 0
