"""What the runtime asks of a kind of device."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from vime_runtime.memory.region import OffloadableRegion
    from vime_runtime.spec.run_config import RunConfig


class Device(Protocol):
    """One kind of device. Modules that implement it are the only ones that name a device's torch module."""

    name: str
    distributed_backend: str

    def torch_device(self) -> torch.device:
        """The device on which this process computes; each process of a run sees exactly one."""
        ...

    def before_megatron(self) -> None:
        """Put in place what must be there before Megatron-core is imported."""
        ...

    def training_region(self, config: RunConfig, rank: int) -> OffloadableRegion:
        """The region of memory that holds model and optimizer of trainer ``rank``."""
        ...

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """To be in force around forward and backward passes of a model in ``dtype``."""
        ...

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done."""
        ...

    def empty_cache(self) -> None:
        """Give cached, unused device memory back where that is safe."""
        ...
