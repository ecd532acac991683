"""vLLM's experts on the CPU, computed in torch from the layer's own parameters.

vLLM copies the experts' weights into a packed form that only its C++ kernel can reach. What that means for
other weights holds here too (``host_sleep``): the packed copies lie where they can neither be given back
nor be written again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, silu
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts


def install() -> None:
    """Let every layer of experts that is built from now on keep its weights as they were loaded."""
    CPUUnquantizedExperts.process_weights_after_loading = _leave_unpacked
    CPUUnquantizedExperts.apply = _apply


def _leave_unpacked(self: CPUUnquantizedExperts, layer: torch.nn.Module) -> None:
    if layer.activation != MoEActivation.SILU or self.w1_bias is not None:
        raise NotImplementedError(f"experts with {layer.activation} or biases, on a CPU")


def _apply(
    self: CPUUnquantizedExperts,
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
        topk_weights: float32 [tokens, chosen]; topk_ids: int32, the same shape.
    """
    total = torch.zeros_like(output, dtype=torch.float32)
    for expert in topk_ids.unique().tolist():
        tokens, choice = (topk_ids == expert).nonzero(as_tuple=True)
        # In fp32: torch has no fast bf16 product on every CPU, and rounds once more at each step.
        gate, up = linear(hidden_states[tokens].float(), w1[expert].float()).chunk(2, dim=-1)
        made = linear(silu(gate) * up, w2[expert].float())
        total.index_add_(0, tokens, made * topk_weights[tokens, choice, None])
    output.copy_(total)
