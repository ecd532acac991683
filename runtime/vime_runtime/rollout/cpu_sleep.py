"""vLLM's sleep mode on the CPU: weights and KV cache live in regions whose pages go back to the kernel."""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from vllm.device_allocator.sleep_mode_backend import SleepModeBackend
from vllm.model_executor.layers import utils as layer_utils
from vllm.platforms import current_platform

from vime_runtime.memory.cpu_region import CpuRegion
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.rollout import cpu_experts


class HostSleep(SleepModeBackend):
    """One region for the weights, one for the KV cache.

    Level 1 keeps the weights in a file, level 2 drops them; the KV cache is dropped at both.
    """

    def __init__(self) -> None:
        super().__init__()
        directory = Path(tempfile.gettempdir())
        self._regions = {tag: CpuRegion(directory) for tag in ("weights", "kv_cache")}
        # vLLM would copy the weight of every linear layer into a packed form that only its C++ kernel
        # can reach, in memory of the C library's heap, which cannot be given back or even measured.
        layer_utils.dispatch_cpu_unquantized_gemm = _leave_unpacked
        cpu_experts.install()

    def memory_pool(self, tag: str) -> AbstractContextManager[None]:
        """Tensors created inside belong to ``tag``; state of other kinds is small and stays where it is."""
        region = self._regions.get(tag)
        return region.allocating() if region else nullcontext()

    def suspend(self, level: int = 1) -> None:
        """Give the memory of weights and KV cache back."""
        if level == 1:
            self._regions["weights"].pause()
        else:
            self._regions["weights"].discard()
        self._regions["kv_cache"].discard()
        self._state = "SUSPENDED"

    def resume(self, tags: list[str] | None = None) -> None:
        """Take the memory of the given tags, or of all that sleep, again."""
        for tag, region in self._regions.items():
            if region.offloaded and (tags is None or tag in tags):
                region.resume()
        if not any(region.offloaded for region in self._regions.values()):
            self._state = "RUNNING"

    def memory_usage(self) -> MemoryUsage:
        """Weights and KV cache of this worker, as the kernel sees them."""
        return MemoryUsage.total(region.memory_usage() for region in self._regions.values())

    @classmethod
    def is_supported(cls) -> bool:
        """Only where weights and KV cache lie in host memory."""
        return current_platform.is_cpu()

    @classmethod
    def preserves_communicators(cls) -> bool:
        """Sleeping does not touch the process groups."""
        return True


def _leave_unpacked(layer: torch.nn.Module, remove_weight: bool) -> None:
    """Multiply with the layer's own parameter."""
    by_hand = layer.weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    layer.cpu_linear = _linear_in_fp32 if by_hand else torch.nn.functional.linear


def _linear_in_fp32(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """A bf16 product on a CPU without bf16 instructions.

    torch has only a plain loop for it there, ten times slower (512 x 256, 128 rows, AVX2) than
    converting both factors; the sums are in fp32 either way.
    """
    bias = None if bias is None else bias.float()
    return torch.nn.functional.linear(x.float(), weight.float(), bias).to(x.dtype)
