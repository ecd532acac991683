"""The training region of an accelerator, over the library torch_memory_saver.

Written against torch_memory_saver 0.0.10 (``torch_memory_saver/entrypoint.py``): one saver a process;
``region`` allocates through a memory pool, ``pause`` copies what is in it to the host and unmaps the
device pages, ``resume`` maps pages at the same virtual addresses and copies back.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from vime_runtime.memory.region import Residency

TAG = "vime-training"


class SaverRegion:
    """A region in device memory; while it is paused its contents wait in host memory.

    Args:
        hook_mode: "torch", a pluggable allocator (the only mode that works on an NPU), or "preload", for
            which the process must have been started with the library in LD_PRELOAD.
    """

    def __init__(self, hook_mode: Literal["torch", "preload"]) -> None:
        self._saver = _saver(hook_mode)
        self._nesting = 0
        self._paused = False
        self._mapped = 0
        self._resident = 0

    @property
    def paused(self) -> bool:
        """Whether the memory is given back at the moment."""
        return self._paused

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """Every tensor created on the device inside lives in the region."""
        if self._paused:
            raise RuntimeError("the region is paused: nothing can be allocated in it")
        if self._nesting:  # its memory pool is in use already and cannot be entered twice
            yield
            return
        self._nesting += 1
        free = _free_bytes()
        try:
            with self._saver.region(tag=TAG, enable_cpu_backup=True):
                yield
        finally:
            self._nesting -= 1
            taken = free - _free_bytes()
            self._mapped += taken
            self._resident += taken

    def pause(self) -> None:
        """Copy the contents to the host and unmap the device memory."""
        self._expect(paused=False)
        free = _free_bytes()
        self._saver.pause(TAG)
        self._resident += free - _free_bytes()
        self._paused = True

    def resume(self) -> None:
        """Map device memory at the same addresses and copy the contents back."""
        self._expect(paused=True)
        free = _free_bytes()
        self._saver.resume(TAG)
        self._resident += free - _free_bytes()
        self._paused = False

    def residency(self) -> Residency:
        """What the driver's free memory fell by while the region allocated, and rose by when it paused.

        Exact as long as nobody else takes or gives device memory during those moments, as is the case
        while trainer and engine take turns.
        """
        return Residency(self._mapped, self._resident)

    def _expect(self, paused: bool) -> None:
        if self._paused is not paused:
            raise RuntimeError(f"the region is {'not ' if paused else ''}paused")


def _saver(hook_mode: str) -> Any:
    # Imported here: the library looks for a device's runtime, which a CPU machine has not.
    saver = importlib.import_module("torch_memory_saver").torch_memory_saver
    saver.hook_mode = hook_mode
    return saver


def _free_bytes() -> int:
    device = torch.get_device_module()
    device.synchronize()
    return device.mem_get_info()[0]
