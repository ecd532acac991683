"""Simulate torch_memory_saver, built for Ascend, with the interface of version 0.0.8.

What does not work with the real one on an NPU is an error here, with what happens there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch_npu
from torch_npu import _books, _memory, _npu

DEFAULT_TAG = "default"


class TorchMemorySaver:
    """One per process."""

    def __init__(self) -> None:
        self._hook_mode = os.environ.get("TMS_HOOK_MODE", "preload")
        self._used = False
        self._backup: dict[str, bool] = {}
        self._kept: dict[_memory.Block, bytes] = {}

    @property
    def hook_mode(self) -> None:
        raise AttributeError("only to be set")

    @hook_mode.setter
    def hook_mode(self, mode: str) -> None:
        if self._used:
            raise AssertionError("cannot configure after it has been used")
        self._hook_mode = mode

    @contextmanager
    def region(self, tag: str = DEFAULT_TAG, enable_cpu_backup: bool = False) -> Iterator[None]:
        """Make every device tensor created inside offloadable."""
        self._require()
        if _memory.MEMORY.region is not None:
            raise RuntimeError("the memory pool is in use already")
        self._backup[tag] = enable_cpu_backup
        _books.record("tms_region", tag=tag, backup=enable_cpu_backup, chip=_npu.chip())
        with _memory.region(tag):
            yield

    def pause(self, tag: str | None = None) -> None:
        """Return the memory of one region, or of all, to the driver."""
        self._require()
        for block in self._blocks(tag):
            if block.gone:
                raise RuntimeError("torch_memory_saver: Cannot pause allocation that is not active")
            if self._backup[block.region]:
                self._kept[block] = bytes(_memory.MEMORY.view(block))
            _memory.MEMORY.drop(block)
        _books.record("tms_pause", tag=tag, chip=_npu.chip())

    def resume(self, tag: str | None = None) -> None:
        """Allocate the memory again at the same addresses, and restore the backup."""
        self._require()
        for block in self._blocks(tag):
            if not block.gone:
                raise RuntimeError("torch_memory_saver: Cannot resume allocation that is not paused")
            _memory.MEMORY.take_again(block)
            if (kept := self._kept.pop(block, None)) is not None:
                _memory.MEMORY.view(block)[:] = kept
        _books.record("tms_resume", tag=tag, chip=_npu.chip())

    def _blocks(self, tag: str | None) -> list[_memory.Block]:
        return [
            block for one in self._backup if tag in (None, one) for block in _memory.MEMORY.of_region(one)
        ]

    def _require(self) -> None:
        self._used = True
        if self._hook_mode != "torch":
            raise RuntimeError(f"torch_memory_saver: on an NPU hook mode {self._hook_mode!r} hooks nothing")
        if "expandable_segments:False" not in _npu.ALLOCATOR_CONFIGURATION:
            raise RuntimeError(
                "torch_memory_saver: the pluggable allocator does not work with expandable segments, which "
                f"are enabled: PYTORCH_NPU_ALLOC_CONF={_npu.ALLOCATOR_CONFIGURATION!r}"
            )


torch_memory_saver = TorchMemorySaver()
__all__ = ["torch_memory_saver", "torch_npu"]
