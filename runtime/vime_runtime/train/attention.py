"""Causal attention over a packed row, for Megatron's local layer spec, which has none of its own."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from vime_runtime.train.packing import PackedSequences


class PackedAttention(MegatronModule):
    """The ``core_attention`` of a self-attention layer: each sequence of the row attends to itself alone.

    A run of equally long sequences is viewed as one dense batch, so that torch's own fused kernel
    does the work, with no mask, no padding and no copy on the way in.
    """

    def __init__(self, config: TransformerConfig, **layer: Any) -> None:
        super().__init__(config=config)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        packed_seq_params: PackedSequences,
        **unused: Any,
    ) -> Tensor:
        """Attend.

        Args:
            query: [T, heads of this rank, head_dim].
            key, value: [T, key/value heads of this rank, head_dim].
            attention_mask: None; causality and the sequence boundaries say it all.
            packed_seq_params: where the sequences lie.

        Returns:
            [T, heads of this rank, head_dim], in the dtype of ``query``.
        """
        parts = []
        start = 0
        for count, length in packed_seq_params.runs:
            stop = start + count * length
            run = (
                # [count * length, heads, dim] -> [count, heads, length, dim]
                tensor[start:stop].unflatten(0, (count, length)).transpose(1, 2)
                for tensor in (query, key, value)
            )
            out = scaled_dot_product_attention(*run, is_causal=True, enable_gqa=True)
            parts.append(out.transpose(1, 2).flatten(0, 1))
            start = stop
        return torch.cat(parts)
