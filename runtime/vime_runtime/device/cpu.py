"""The CPU: gloo between the ranks, a file-backed training region."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vime_runtime.memory.region import OffloadableRegion
from vime_runtime.spec.run_config import RunConfig

aten = torch.ops.aten


class Cpu:
    """A CPU."""

    distributed_backend = "gloo"

    def torch_device(self) -> torch.device:
        """Return the CPU."""
        return torch.device("cpu")

    def before_megatron(self) -> None:
        """Do nothing: what Megatron-core needs on a CPU is patched in its sources."""

    def training_region(self, config: RunConfig, rank: int) -> OffloadableRegion:
        """Return a region whose bytes are in a file of ``memory.offload_dir`` while offloaded."""
        from vime_runtime.memory.cpu_region import CpuRegion

        return CpuRegion(Path(config.recipe.memory.offload_dir or config.run_dir))

    def computing(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Compute bf16 products in fp32 on a CPU that has no instructions for bf16."""
        return Bf16MatmulInFp32() if matmul_is_slow(dtype) else nullcontext()  # type: ignore[no-untyped-call]

    def synchronize(self) -> None:
        """Do nothing: work on a CPU is done when the call returns."""


def matmul_is_slow(dtype: torch.dtype) -> bool:
    """Return True for bf16 on a CPU without AVX-512 or AMX.

    torch has only a scalar loop for it there, ten times slower (512 x 256, 128 rows, AVX2) than converting
    both factors to fp32 and the result to bf16. The sums are in fp32 either way.
    """
    return dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Bf16MatmulInFp32(TorchDispatchMode):
    """Compute every bf16 ``mm`` in fp32 and round the result once."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is aten.mm.default and args[0].dtype is torch.bfloat16:
            return torch.mm(args[0].float(), args[1].float()).bfloat16()
        return func(*args, **(kwargs or {}))
