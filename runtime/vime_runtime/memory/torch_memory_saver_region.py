"""A region in device memory, implemented by the library torch_memory_saver.

Written against torch_memory_saver 0.0.10 (``torch_memory_saver/entrypoint.py``): there is one saver per
process. ``region`` allocates through a memory pool, ``pause`` copies the contents of the pool to CPU memory
and unmaps the device pages, ``resume`` maps pages at the same virtual addresses and copies back.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from vime_runtime.memory.region import MemoryUsage, OffloadableRegion

TAG = "vime-training"


class TorchMemorySaverRegion(OffloadableRegion):
    """A region in device memory; while it is offloaded its contents are in CPU memory.

    Args:
        hook_mode: "torch" installs a pluggable allocator and is the only mode that works on an NPU.
            "preload" requires that the process was started with the library in LD_PRELOAD.
    """

    def __init__(self, hook_mode: Literal["torch", "preload"]) -> None:
        super().__init__()
        # Imported here because the library loads the device's runtime, which a CPU machine does not have.
        self._saver = importlib.import_module("torch_memory_saver").torch_memory_saver
        self._saver.hook_mode = hook_mode
        self._resident = 0

    def memory_usage(self) -> MemoryUsage:
        """Measure by how much the driver's free memory changed in ``allocating``, ``pause`` and ``resume``.

        This is exact if no other process allocates or frees device memory during these calls. That is the
        case because trainer and engine alternate.
        """
        return MemoryUsage(self._resident)

    @contextmanager
    def _allocate(self) -> Iterator[None]:
        with self._measured(), self._saver.region(tag=TAG, enable_cpu_backup=True):
            yield

    def _offload(self) -> None:
        with self._measured():
            self._saver.pause(TAG)

    def _restore(self) -> None:
        with self._measured():
            self._saver.resume(TAG)

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Add the device memory that is allocated in the context to the resident bytes."""
        free = _free_bytes()
        try:
            yield
        finally:
            self._resident += free - _free_bytes()


def _free_bytes() -> int:
    device = torch.get_device_module()
    device.synchronize()
    free, _total = device.mem_get_info()
    return int(free)
