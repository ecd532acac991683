"""CUDA: NCCL between the ranks, torch_memory_saver preloaded for the training region."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vime_runtime.memory.region import OffloadableRegion
from vime_runtime.spec.run_config import RunConfig


class Cuda:
    """An NVIDIA GPU."""

    name = "cuda"
    distributed_backend = "nccl"

    def torch_device(self) -> torch.device:
        """The one GPU that this process sees."""
        return torch.device("cuda", torch.cuda.current_device())

    def before_megatron(self) -> None:
        """Nothing: Megatron-core is written for CUDA."""

    def training_region(self, config: RunConfig, rank: int) -> OffloadableRegion:
        """A region of torch_memory_saver, hooked below the allocator."""
        from vime_runtime.memory.torch_memory_saver_region import TorchMemorySaverRegion

        return TorchMemorySaverRegion(hook_mode="preload")

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Nothing: the device computes in every dtype by itself."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait for every queued kernel."""
        torch.cuda.synchronize()

    def empty_cache(self) -> None:
        """Return cached blocks to the driver, for the engine to use."""
        torch.cuda.empty_cache()
