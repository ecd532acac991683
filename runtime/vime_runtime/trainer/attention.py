"""Causal attention over a packed row: by torch's kernels, or by the fused operator of NPUs.

Megatron's local layer spec has no attention for packed rows. The class is selected once per process, before
Megatron is imported, so this module imports neither Megatron nor, before it is called, ``torch_npu``.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, scaled_dot_product_attention

if TYPE_CHECKING:
    from vime_runtime.trainer.packing import PackedSequences, ResponseRun

# MindSpeed's adaptor patches Megatron's own attention so that it requires a mask, which a packed row lacks. A
# layer spec that still has Megatron's attention when the adaptor is imported gets the patched one.
ADAPTOR = "mindspeed.megatron_adaptor"

# Arguments and limits of the operator ``npu_fusion_attention`` (op-plugin,
# ``docs/context/torch_npu-npu_fusion_attention.md``). In mode 3 the last query attends to the last key, and
# the mask is a compressed one of 2048 x 2048 for any lengths.
RIGHT_DOWN_CAUSAL = 3
MASK_SIZE = 2048
MAX_SEQUENCES = 1024  # actual_seq_qlen "supports at most 1K" of them


class PackedAttention(nn.Module):
    """The ``core_attention`` of a self-attention layer, with torch's fused kernel.

    Runs of equal lengths are dense batches, so the kernel needs no padding.
    """

    def __init__(self, config: Any, **layer: Any) -> None:
        super().__init__()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: None,
        packed_seq_params: PackedSequences,
        **unused: Any,
    ) -> Tensor:
        """Attend from each token to itself and those before it; a response attends to its prompt too.

        Args:
            query: [tokens, local heads, head_dim].
            key, value: [tokens, local key/value heads, head_dim].
            attention_mask: None; ``packed_seq_params`` takes its place.
            packed_seq_params: which tokens attend to which.

        Returns:
            [tokens, local heads, head_dim], in the dtype of ``query``.
        """
        return self._attend(query, key, value, packed_seq_params)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, packed: PackedSequences) -> Tensor:
        outputs = []
        start = 0
        for count, length in packed.prompt_runs:
            stop = start + count * length
            q, k, v = (_batched(tensor[start:stop], count) for tensor in (query, key, value))
            outputs.append(_flattened(scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)))
            start = stop
        for run in packed.response_runs:
            stop = start + len(run.key_rows) * run.length
            q = _batched(query[start:stop], len(run.key_rows))
            outputs.append(_flattened(_attend_to_prompts(q, key, value, run)))
            start = stop
        return torch.cat(outputs)


def _attend_to_prompts(query: Tensor, key: Tensor, value: Tensor, run: ResponseRun) -> Tensor:
    """Attend from responses [count, heads, length, head_dim] to ``run.key_rows`` of keys and values."""
    count, width = run.key_rows.shape
    k, v = (
        # An embedding lookup: its backward adds gradients of rows that several responses share in parallel.
        embedding(run.key_rows, tensor.flatten(1)).view(count, width, *tensor.shape[1:]).transpose(1, 2)
        for tensor in (key, value)
    )  # [count, heads, width, head_dim]
    mask = torch.ones(run.length, width, dtype=torch.bool, device=query.device)
    causal = mask.tril(width - run.length)
    return scaled_dot_product_attention(query, k, v, attn_mask=causal, enable_gqa=True)


def _batched(rows: Tensor, count: int) -> Tensor:
    """View [count * length, heads, head_dim] as [count, heads, length, head_dim]."""
    return rows.view(count, -1, *rows.shape[1:]).transpose(1, 2)


def _flattened(batch: Tensor) -> Tensor:
    """Reverse ``_batched``."""
    return batch.transpose(1, 2).flatten(0, 1)


class FusionAttention(PackedAttention):
    """The same with ``torch_npu.npu_fusion_attention``.

    The operator derives the group of a query head from the numbers of heads.
    """

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, packed: PackedSequences) -> Tensor:
        import torch_npu

        q_lengths, k_lengths, key_rows = _sequence_lengths(packed, query.device)
        outputs = []
        q = k = 0
        for first in range(0, len(q_lengths), MAX_SEQUENCES):
            part = slice(first, first + MAX_SEQUENCES)
            q_ends, k_ends = list(accumulate(q_lengths[part])), list(accumulate(k_lengths[part]))
            rows = key_rows[k : k + k_ends[-1]]
            output, *_ = torch_npu.npu_fusion_attention(
                query[q : q + q_ends[-1]],
                take_rows(key, rows),
                take_rows(value, rows),
                query.shape[1],
                "TND",  # sequences end to end, with the end of each
                atten_mask=_compressed_mask(query.device),
                scale=query.shape[2] ** -0.5,
                keep_prob=1.0,
                sparse_mode=RIGHT_DOWN_CAUSAL,
                actual_seq_qlen=q_ends,
                actual_seq_kvlen=k_ends,
            )
            outputs.append(output)
            q += q_ends[-1]
            k += k_ends[-1]
        return torch.cat(outputs)


@lru_cache(maxsize=1)
def _compressed_mask(device: torch.device) -> Tensor:
    """Return the mask of mode 3, bool [2048, 2048]: True is masked."""
    return torch.ones(MASK_SIZE, MASK_SIZE, dtype=torch.bool, device=device).triu(1)


def _sequence_lengths(packed: PackedSequences, device: torch.device) -> tuple[list[int], list[int], Tensor]:
    """Describe a row as sequences: a prompt attends to itself, a response to its prompt and itself.

    Returns:
        number of queries and number of keys of each sequence, and int64 [all keys], the rows of the keys.
    """
    prompts = [length for count, length in packed.prompt_runs for _ in range(count)]
    responses = [(run.length, run.key_rows.shape[1]) for run in packed.response_runs for _ in run.key_rows]
    rows = [torch.arange(sum(prompts), device=device), *(r.key_rows.flatten() for r in packed.response_runs)]
    return (
        prompts + [queries for queries, _ in responses],
        prompts + [keys for _, keys in responses],
        torch.cat(rows),
    )


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = tensor.shape
        return tensor.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        total = torch.zeros(ctx.shape, dtype=torch.float32, device=grad.device)
        return total.index_add_(0, rows, grad.float()).to(grad.dtype), None


def take_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a tensor; a row may be taken several times.

    On an NPU the gradients of such a row are added in fp32. Indexing would add them with an ``index_put``,
    in bf16. On a CPU indexing is faster than ``index_add_``, which adds row by row.
    """
    if tensor.device.type == "cpu":
        return tensor[rows]
    result: Tensor = _TakeRows.apply(tensor, rows)  # type: ignore[no-untyped-call]
    return result


_core_attention: type[nn.Module] = PackedAttention


def set_core_attention(cls: type[nn.Module]) -> None:
    """Set the class that computes attention in every layer that is built from now on.

    Raises:
        RuntimeError: MindSpeed's adaptor was imported before.
    """
    global _core_attention
    if cls is not _core_attention and ADAPTOR in sys.modules:
        raise RuntimeError(f"{cls.__name__} must be set before {ADAPTOR} is imported")
    _core_attention = cls


def core_attention() -> type[nn.Module]:
    """Return the class for ``core_attention`` in the layer spec."""
    return _core_attention
