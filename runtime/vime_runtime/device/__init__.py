"""The devices that the runtime trains on, behind one protocol."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from vime_runtime.device.cpu import Cpu
from vime_runtime.device.npu import Npu

if TYPE_CHECKING:
    import torch

    from vime_runtime.memory.region import OffloadableRegion
    from vime_runtime.spec.run_config import RunConfig


class Device(Protocol):
    """One kind of device. Only the modules that implement it name a device's torch module.

    There is no ``empty_cache``: under the memory saver's pluggable allocator it frees blocks of an NPU that
    are in use, and the CPU allocator has no cache.
    """

    distributed_backend: str

    def torch_device(self) -> torch.device:
        """Return the device on which this process computes; each process of a run sees exactly one."""
        ...

    def before_megatron(self) -> None:
        """Prepare the process for the import of Megatron-core."""
        ...

    def training_region(self, config: RunConfig, rank: int) -> OffloadableRegion:
        """Return the region of memory for the model and the optimizer of trainer ``rank``."""
        ...

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Return the context for the forward and backward passes of a model in ``dtype``."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done."""
        ...


def get(name: str) -> Device:
    """Return the device called ``cpu`` or ``npu``. Raises KeyError for any other name."""
    devices: dict[str, type[Device]] = {"cpu": Cpu, "npu": Npu}
    return devices[name]()
