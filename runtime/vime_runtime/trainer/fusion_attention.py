"""Causal attention on an NPU: the fused operator ``torch_npu.npu_fusion_attention``.

Layouts, modes and limits are those of the operator's documentation (op-plugin,
``docs/context/torch_npu-npu_fusion_attention.md``): TND takes sequences end to end with the *ends* of each,
SBH takes sequences of equal length; in mode 3 the last query attends to the last key, and the mask is a
compressed one of 2048 x 2048 whatever the lengths are.

Imports nothing of Megatron, and ``torch_npu`` when it is called: see ``core_attention.py``.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from vime_runtime.trainer.packing import PackedSequences

RIGHT_DOWN_CAUSAL = 3
MASK_SIZE = 2048
# So many sequences a TND call takes: actual_seq_qlen "supports at most 1K" of them.
SEQUENCES = 1024


class FusionAttention(nn.Module):
    """The ``core_attention`` of a self-attention layer. The group of a query head follows from the counts."""

    def __init__(self, config: Any, softmax_scale: float | None = None, **layer: Any) -> None:
        super().__init__()
        if config.attention_dropout:
            raise ValueError(f"attention_dropout is {config.attention_dropout}; no model here has any")
        self._scale = softmax_scale or config.kv_channels**-0.5

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        packed_seq_params: PackedSequences | None = None,
        **unused: Any,
    ) -> Tensor:
        """Attend, each token to itself and those before it.

        Args:
            query: [T, heads of this rank, head_dim] of a packed row; without ``packed_seq_params``
                [S, B, heads of this rank, head_dim].
            key, value: the same with the key/value heads of this rank.
            attention_mask: None; it is causal.
            packed_seq_params: which tokens attend to which.

        Returns:
            [T, heads of this rank, head_dim], or [S, B, heads of this rank x head_dim].
        """
        if packed_seq_params is None:
            heads = query.shape[2]
            flat = (tensor.flatten(2) for tensor in (query, key, value))
            return self._fused(*flat, heads=heads, layout="SBH")
        queries, keys, rows = _sequences(packed_seq_params, query.device)
        parts = []
        q = k = 0
        for first in range(0, len(queries), SEQUENCES):
            q_ends, k_ends = (list(accumulate(n[first : first + SEQUENCES])) for n in (queries, keys))
            attended = rows[k : k + k_ends[-1]]
            parts.append(
                self._fused(
                    query[q : q + q_ends[-1]],
                    key.index_select(0, attended),
                    value.index_select(0, attended),
                    heads=query.shape[1],
                    layout="TND",
                    actual_seq_qlen=q_ends,
                    actual_seq_kvlen=k_ends,
                )
            )
            q += q_ends[-1]
            k += k_ends[-1]
        return torch.cat(parts)

    def _fused(
        self, query: Tensor, key: Tensor, value: Tensor, heads: int, layout: str, **lengths: list[int]
    ) -> Tensor:
        import torch_npu

        return torch_npu.npu_fusion_attention(
            query,
            key,
            value,
            heads,
            layout,
            atten_mask=_mask(query.device),
            scale=self._scale,
            keep_prob=1.0,
            sparse_mode=RIGHT_DOWN_CAUSAL,
            **lengths,
        )[0]


@lru_cache(maxsize=1)
def _mask(device: torch.device) -> Tensor:
    """What mode 3 takes for any lengths: True where nothing is attended to."""
    return torch.ones(MASK_SIZE, MASK_SIZE, dtype=torch.bool, device=device).triu(1)


def _sequences(packed: PackedSequences, device: torch.device) -> tuple[list[int], list[int], Tensor]:
    """A row as sequences in its order: a prompt attends to itself, a response to its prompt and then itself.

    Returns:
        how many queries each sequence has, how many keys, and int64 [all keys], the rows of the keys.
    """
    prompts = [length for count, length in packed.prompts for _ in range(count)]
    responses = [(run.length, run.attended.shape[1]) for run in packed.branches for _ in run.attended]
    rows = [torch.arange(sum(prompts), device=device), *(run.attended.flatten() for run in packed.branches)]
    return (
        prompts + [queries for queries, _ in responses],
        prompts + [keys for _, keys in responses],
        torch.cat(rows),
    )
