"""The host itself: gloo between the ranks, a file-backed training region."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from vime_runtime.device.bf16_matmul import ProductsInFp32
from vime_runtime.memory.region import OffloadableRegion
from vime_runtime.spec.run_config import RunConfig


class Cpu:
    """A CPU."""

    name = "cpu"
    distributed_backend = "gloo"

    def torch_device(self) -> torch.device:
        """The host."""
        return torch.device("cpu")

    def before_megatron(self) -> None:
        """Nothing: what Megatron-core needs on a CPU is patched in its sources."""

    def training_region(self, config: RunConfig, rank: int) -> OffloadableRegion:
        """A region whose bytes wait in a file of ``memory.offload_dir`` while offloaded."""
        from vime_runtime.memory.cpu_region import CpuRegion

        return CpuRegion(Path(config.recipe.memory.offload_dir or config.run_dir))

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """bf16 products through fp32 on a CPU that has no instructions for them."""
        slow = dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return ProductsInFp32() if slow else nullcontext()

    def synchronize(self) -> None:
        """Nothing: work on the host is done when the call returns."""

    def empty_cache(self) -> None:
        """Nothing: the host allocator keeps no cache of its own to empty."""
