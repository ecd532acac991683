"""A region in device memory, implemented by the library torch_memory_saver.

Written against torch_memory_saver 0.0.8, the one for NPUs (sgl-project/sgl-kernel-npu, tag 2026.6.0), and
0.0.10 for GPUs. There is one saver per process. ``region`` allocates through a memory pool, ``pause`` copies
the contents of the pool to CPU memory and unmaps the device pages, ``resume`` maps pages at the same virtual
addresses and copies back.

A memory pool never returns blocks: memory of a tensor that was freed in it stays mapped, and is copied at
every pause. So only lasting tensors may be allocated in the region.

The library for NPUs does not check its copies (``csrc/core.cpp``) and calls ``exit(1)`` when the device has
too little memory for ``resume``. This module checks both.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor

from vime_runtime.memory.region import MemoryUsage, OffloadableRegion
from vime_runtime.spec.device_memory import MARGIN
from vime_runtime.spec.errors import DEVICE_MEMORY_HINT, DeviceMemoryError

TAG = "vime-training"

# Values of each tensor that are compared. The library copies whole allocations: a copy that failed or stopped
# early changes an allocation as a whole or from some point on.
SAMPLES = 1024
GIB = 1024**3


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
        self._offloaded_bytes = 0
        self._lasting: Mapping[str, Tensor] = {}
        self._zeros: list[tuple[Tensor, int]] = []  # with the bytes of their memory
        self._samples: dict[str, Tensor] = {}

    def allocating_zeros(self) -> AbstractContextManager[None]:
        """Allocate outside the saver's pool, so that ``pause`` can free the memory."""
        return nullcontext()

    def register(self, lasting: Mapping[str, Tensor], zeros: Iterable[Tensor]) -> None:
        """Name the tensors whose contents ``resume`` checks, and those that it allocates again."""
        self._lasting = lasting
        self._zeros = [(tensor, tensor.untyped_storage().nbytes()) for tensor in zeros]
        self._resident += sum(nbytes for _, nbytes in self._zeros)

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
        self._samples = _sample(self._lasting)
        for tensor, nbytes in self._zeros:
            tensor.untyped_storage().resize_(0)
            self._resident -= nbytes
        before = self._resident
        with self._measured():
            self._saver.pause(TAG)
        self._offloaded_bytes = before - self._resident

    def _restore(self) -> None:
        self._require_memory()
        with self._measured():
            self._saver.resume(TAG)
        for name, sample in _sample(self._lasting).items():
            if not torch.equal(sample, self._samples[name]):
                raise DeviceMemoryError(
                    f"{name} has other values after it was copied to CPU memory and back: a copy by "
                    "torch_memory_saver failed",
                    "resume the run from its last training state; the log of the driver (dmesg, "
                    "~/ascend/log) may say why copies fail",
                )
        for tensor, nbytes in self._zeros:
            tensor.untyped_storage().resize_(nbytes)
            tensor.zero_()
            self._resident += nbytes

    def _require_memory(self) -> None:
        free, total = torch.get_device_module().mem_get_info()
        needed = self._offloaded_bytes + sum(nbytes for _, nbytes in self._zeros)
        margin = int(total * MARGIN)
        if free < needed + margin:
            raise DeviceMemoryError(
                f"the trainer needs {needed / GIB:.2f} GiB of the device's memory and {margin / GIB:.2f} GiB "
                f"for a step, but {free / GIB:.2f} of {total / GIB:.2f} GiB are free",
                DEVICE_MEMORY_HINT,
            )

    @contextmanager
    def _measured(self) -> Iterator[None]:
        """Add the device memory that is allocated in the context to the resident bytes."""
        free = _free_bytes()
        try:
            yield
        finally:
            self._resident += free - _free_bytes()


def _sample(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the bytes of at most ``SAMPLES`` evenly spaced values of each tensor, the last one included.

    The results are uint8 in CPU memory: equal NaNs are equal.
    """
    samples = {}
    for name, tensor in tensors.items():
        values = tensor.detach().flatten()
        step = -(-values.numel() // SAMPLES)
        chosen = values[(values.numel() - 1) % step :: step]
        samples[name] = chosen.contiguous().cpu().view(torch.uint8)
    return samples


def _free_bytes() -> int:
    device = torch.get_device_module()
    device.synchronize()
    free, _total = device.mem_get_info()
    return int(free)
