"""vLLM's sleep mode on a CPU: weights and KV cache are in regions whose pages the kernel can reclaim.

vLLM copies the weights of linear layers and of experts into a packed form that only its C++ kernels can read,
in memory of the C library's heap. That memory can neither be released nor measured, and a weight update
cannot reach it. So layers keep their weights as they were loaded, and are computed in torch.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, silu
from vllm.device_allocator.sleep_mode_backend import SleepModeBackend
from vllm.model_executor.layers import utils as layer_utils
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
from vllm.platforms import current_platform

from vime_runtime.device import matmul_is_slow
from vime_runtime.memory.cpu_region import CpuRegion
from vime_runtime.memory.region import MemoryUsage


class CpuSleep(SleepModeBackend):
    """One region for the weights, one for the KV cache.

    Level 1 keeps the weights in a file, level 2 drops them; the KV cache is dropped at both.
    """

    def __init__(self) -> None:
        super().__init__()
        directory = Path(tempfile.gettempdir())
        self._regions = {tag: CpuRegion(directory) for tag in ("weights", "kv_cache")}
        layer_utils.dispatch_cpu_unquantized_gemm = _keep_linear_unpacked
        experts: Any = CPUUnquantizedExperts
        experts.process_weights_after_loading = _keep_experts_unpacked
        experts.apply = _apply_experts

    def memory_pool(self, tag: str) -> AbstractContextManager[None]:
        """Place tensors created inside in the region of ``tag``; other state is small and stays resident."""
        region = self._regions.get(tag)
        return region.allocating() if region else nullcontext()

    def suspend(self, level: int = 1) -> None:
        """Release the memory of weights and KV cache."""
        if level == 1:
            self._regions["weights"].pause()
        else:
            self._regions["weights"].discard()
        self._regions["kv_cache"].discard()
        self._state = "SUSPENDED"

    def resume(self, tags: list[str] | None = None) -> None:
        """Allocate the memory of the given tags again, or of all that are asleep."""
        for tag, region in self._regions.items():
            if region.offloaded and (tags is None or tag in tags):
                region.resume()
        if not any(region.offloaded for region in self._regions.values()):
            self._state = "RUNNING"

    def memory_usage(self) -> MemoryUsage:
        """Return the memory of this worker's weights and KV cache, as the kernel reports it."""
        return MemoryUsage.total(region.memory_usage() for region in self._regions.values())

    @classmethod
    def is_supported(cls) -> bool:
        """Return True if weights and KV cache are in CPU memory."""
        return current_platform.is_cpu()

    @classmethod
    def preserves_communicators(cls) -> bool:
        """Return True: sleeping does not touch the process groups."""
        return True


def _keep_linear_unpacked(layer: torch.nn.Module, remove_weight: bool) -> None:
    """Multiply with the layer's own parameter."""
    weight: Any = layer.weight
    vars(layer)["cpu_linear"] = _linear_in_fp32 if matmul_is_slow(weight.dtype) else linear


def _linear_in_fp32(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a bf16 product in fp32."""
    return linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def _keep_experts_unpacked(self: Any, layer: Any) -> None:
    if layer.activation != MoEActivation.SILU or self.w1_bias is not None:
        raise NotImplementedError(f"experts with {layer.activation} or biases, on a CPU")


def _apply_experts(
    self: Any,
    output: Tensor,
    hidden_states: Tensor,
    w1: Tensor,
    w2: Tensor,
    topk_weights: Tensor,
    topk_ids: Tensor,
    *unused: Any,
    **also_unused: Any,
) -> None:
    """Write each token's weighted sum over its experts into ``output``.

    Args:
        output, hidden_states: [tokens, hidden].
        w1: [experts, 2 * rows, hidden], gate and up; w2: [experts, hidden, rows].
        topk_weights: float32 [tokens, top_k]; topk_ids: int32 [tokens, top_k].
    """
    total = torch.zeros_like(output, dtype=torch.float32)  # [tokens, hidden]
    for expert in topk_ids.unique().tolist():
        tokens, choice = (topk_ids == expert).nonzero(as_tuple=True)  # [tokens of the expert]
        # In fp32: torch has no fast bf16 product on every CPU, and rounds once more at each step.
        gate, up = linear(hidden_states[tokens].float(), w1[expert].float()).chunk(2, dim=-1)
        result = linear(silu(gate) * up, w2[expert].float())
        total.index_add_(0, tokens, result * topk_weights[tokens, choice, None])
    output.copy_(total)
