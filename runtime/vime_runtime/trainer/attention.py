"""Causal attention over a packed row, for Megatron's local layer spec, which has none of its own."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from torch import Tensor
from torch.nn.functional import embedding, scaled_dot_product_attention

from vime_runtime.trainer.packing import Branches, PackedSequences


class PackedAttention(MegatronModule):
    """The ``core_attention`` of a self-attention layer: a response attends to its prompt too.

    Runs of equal shape are dense batches, so that torch's own fused kernel does the work without padding.
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
            attention_mask: None; ``packed_seq_params`` says it all.
            packed_seq_params: which tokens attend to which.

        Returns:
            [T, heads of this rank, head_dim], in the dtype of ``query``.
        """
        parts = []
        start = 0
        for count, length in packed_seq_params.prompts:
            stop = start + count * length
            batch = (_dense(tensor[start:stop], count) for tensor in (query, key, value))
            parts.append(_rows(scaled_dot_product_attention(*batch, is_causal=True, enable_gqa=True)))
            start = stop
        for run in packed_seq_params.branches:
            stop = start + len(run.attended) * run.length
            own = _dense(query[start:stop], len(run.attended))
            parts.append(_rows(_attend(own, key, value, run)))
            start = stop
        return torch.cat(parts)


def _attend(query: Tensor, key: Tensor, value: Tensor, run: Branches) -> Tensor:
    """Attend from responses, [count, heads, length, dim], to prompts and responses, rows of ``key``."""
    attended = (
        # Looked up as embeddings are: gradients of rows that several responses share add up in parallel.
        embedding(run.attended, tensor.flatten(1)).unflatten(-1, tensor.shape[1:]).transpose(1, 2)
        for tensor in (key, value)
    )
    width = run.attended.shape[1]
    mask = torch.ones(run.length, width, dtype=torch.bool, device=query.device)
    causal = mask.tril(width - run.length)
    return scaled_dot_product_attention(query, *attended, attn_mask=causal, enable_gqa=True)


def _dense(rows: Tensor, count: int) -> Tensor:
    """[count * length, heads, dim] as [count, heads, length, dim], without a copy."""
    return rows.unflatten(0, (count, -1)).transpose(1, 2)


def _rows(dense: Tensor) -> Tensor:
    """The inverse of ``_dense``."""
    return dense.transpose(1, 2).flatten(0, 1)
