"""Stands in for ``vllm_ascend_C``: what CaMemAllocator, vLLM's sleep mode on Ascend, calls of it."""

from __future__ import annotations

from collections.abc import Callable

from torch_npu import _books
from torch_npu._memory import MEMORY

Handle = tuple[int, int, int, int]


def init_module(malloc: Callable[[Handle], None], free: Callable[[int], Handle]) -> None:
    """Take the functions that are told of every allocation in a pool, and of its end."""
    MEMORY.pool_hooks = malloc, free


def python_create_and_map(device: int, size: int, address: int, handle: int) -> None:
    """Give an address memory again."""
    block = MEMORY.blocks[address]
    MEMORY.take_again(block)
    _books.record("camem_map", chip=block.chip, nbytes=size)


def python_unmap_and_release(device: int, size: int, address: int, handle: int) -> None:
    """Give the memory at an address back; the address stays."""
    block = MEMORY.blocks[address]
    MEMORY.drop(block)
    _books.record("camem_unmap", chip=block.chip, nbytes=size)
