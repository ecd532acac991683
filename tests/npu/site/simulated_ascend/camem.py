"""Simulate what CaMemAllocator, vLLM's sleep mode on Ascend, calls of ``vllm_ascend_C``."""

from __future__ import annotations

from collections.abc import Callable

from torch_npu import _books
from torch_npu._memory import MEMORY

Handle = tuple[int, int, int, int]


def init_module(malloc: Callable[[Handle], None], free: Callable[[int], Handle]) -> None:
    """Set the functions to call for every allocation in a pool, and for every free."""
    MEMORY.pool_hooks = malloc, free


def python_create_and_map(device: int, size: int, address: int, handle: int) -> None:
    """Map memory at an address again."""
    block = MEMORY.blocks[address]
    MEMORY.take_again(block)
    _books.record("camem_map", chip=block.chip, nbytes=size)


def python_unmap_and_release(device: int, size: int, address: int, handle: int) -> None:
    """Unmap the memory at an address; the address stays."""
    block = MEMORY.blocks[address]
    MEMORY.drop(block)
    _books.record("camem_unmap", chip=block.chip, nbytes=size)
