"""Ascend NPU: HCCL between the ranks, torch_memory_saver as a pluggable allocator."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vime_runtime.memory.region import OffloadableRegion
from vime_runtime.spec.run_config import RunConfig


class Npu:
    """An Ascend NPU."""

    name = "npu"
    distributed_backend = "hccl"

    def torch_device(self) -> torch.device:
        """The one NPU that this process sees."""
        import torch_npu  # noqa: F401  registers torch.npu

        return torch.device("npu", torch.npu.current_device())

    def before_megatron(self) -> None:
        """Put the NPU's attention in place, and only then import MindSpeed's adaptor."""
        from vime_runtime.device import mindspeed
        from vime_runtime.trainer.attention import FusionAttention, set_core_attention

        set_core_attention(FusionAttention)
        mindspeed.load()

    def training_region(self, config: RunConfig, rank: int) -> OffloadableRegion:
        """A region of torch_memory_saver; the preload mode of that library does not work on an NPU."""
        from vime_runtime.memory.torch_memory_saver_region import TorchMemorySaverRegion

        return TorchMemorySaverRegion(hook_mode="torch")

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Nothing: the device computes in every dtype by itself."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait for every queued kernel."""
        torch.npu.synchronize()

    def empty_cache(self) -> None:
        """Nothing: under the region's pluggable allocator, emptying the cache is unsafe."""
