"""Stands in for torch_memory_saver 0.0.8 for Ascend, in hook mode "torch".

Read at sgl-project/sgl-kernel-npu, tag 2026.6.0: references below are to files in
contrib/torch_memory_saver/python/torch_memory_saver. ``tests/npu/cann/memory_saver.c`` has the device calls.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
import torch_npu  # noqa: F401  entrypoint.py:8
from torch.npu.memory import NPUPluggableAllocator

LIBRARY = "libtorch_memory_saver.so"  # on LD_LIBRARY_PATH; the real one is next to its package: utils.py:7
DEFAULT_TAG = "default"


class TorchMemorySaver:
    """One per process. It is set up on first use: entrypoint.py:84."""

    def __init__(self) -> None:
        self._hook_mode: str | None = os.environ.get("TMS_HOOK_MODE", "torch")  # entrypoint.py:94

    @property
    def hook_mode(self) -> None:
        """Only to be set: entrypoint.py:75."""
        raise AttributeError

    @hook_mode.setter
    def hook_mode(self, mode: str) -> None:
        # After use the real one fails on the dictionary that it has deleted: entrypoint.py:79,88.
        if "_library" in vars(self):
            raise AttributeError("the hook mode is set after use")
        self._hook_mode = mode

    @contextmanager
    def region(self, tag: str = DEFAULT_TAG, enable_cpu_backup: bool = False) -> Iterator[None]:
        """Allocate device tensors of this thread in the pool of the saver: entrypoint.py:104,129."""
        library = self._library
        with torch.npu.use_mem_pool(self._pool):
            assert not library.tms_get_interesting_region()
            self._configure(tag, True, enable_cpu_backup)
            try:
                yield
            finally:
                assert library.tms_get_interesting_region()
                self._configure(DEFAULT_TAG, False, False)

    def pause(self, tag: str | None = None) -> None:
        """Copy what has a backup to the host, free the memory of one region or all: entrypoint.py:165."""
        self._library.tms_pause(tag.encode() if tag else None)

    def resume(self, tag: str | None = None) -> None:
        """Allocate the memory at the same addresses and copy back: entrypoint.py:169."""
        self._library.tms_resume(tag.encode() if tag else None)

    def _configure(self, tag: str, in_region: bool, backup: bool) -> None:
        self._library.tms_set_current_tag(tag.encode())
        self._library.tms_set_interesting_region(in_region)
        self._library.tms_set_enable_cpu_backup(backup)

    @cached_property
    def _library(self) -> ctypes.CDLL:
        if self._hook_mode != "torch":
            # The real one requires its library in LD_PRELOAD: mode_preload.py:15. That has no stand-in.
            raise AssertionError("TorchMemorySaver observes invalid LD_PRELOAD.")
        library = ctypes.CDLL(LIBRARY)
        library.tms_set_current_tag.argtypes = [ctypes.c_char_p]
        library.tms_set_interesting_region.argtypes = [ctypes.c_bool]
        library.tms_get_interesting_region.restype = ctypes.c_bool
        library.tms_set_enable_cpu_backup.argtypes = [ctypes.c_bool]
        library.tms_pause.argtypes = library.tms_resume.argtypes = [ctypes.c_char_p]
        # entrypoint.py:100, mode_torch.py:12
        self._allocator = NPUPluggableAllocator(LIBRARY, "tms_torch_malloc", "tms_torch_free")
        self._pool = torch.npu.MemPool(allocator=self._allocator.allocator())
        return library


torch_memory_saver = TorchMemorySaver()
