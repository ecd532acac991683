"""Operators that vllm-ascend 0.22.1rc1 calls for Qwen3, dense and MoE, in an eager engine.

Those of the namespace ``atb`` are in libop_plugin_atb.so of the released torch_npu, which loads over
``tests/npu/cann/atb.c`` and defines them. References: op-plugin at 517f2e7d0f20, its documentation
(docs/zh/custom_APIs/torch_npu/, one file for each operator) and sources (op_plugin/ops).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch_npu.op_plugin.atb import _atb_ops  # noqa: F401  loads libop_plugin_atb.so

from npu_operators.registry import operator

RIGHT_DOWN_CAUSAL = 3  # of npu_fused_infer_attention_score's sparse modes, from its documentation
MASK_SIZE = (2048, 2048)  # of the compressed mask in that mode
ATTENTION_DTYPES = (torch.float16, torch.bfloat16)
COUNTS = 1  # npu_grouped_matmul's group_list_type: rows of each group


def refuse_others(name: str, arguments: dict[str, object]) -> None:
    """Refuse arguments that this project has no use for, if they are set."""
    if given := [key for key, value in arguments.items() if value is not None and value is not False]:
        raise NotImplementedError(f"{name} has no stand-in for {given}")


@operator("npu_fused_infer_attention_score")
def fused_infer_attention_score(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    atten_mask: Tensor | None = None,
    actual_seq_lengths: Sequence[int],
    actual_seq_lengths_kv: Sequence[int],
    block_table: Tensor | None = None,
    num_heads: int = 1,
    scale: float = 1.0,
    input_layout: str = "BSH",
    num_key_value_heads: int = 0,
    sparse_mode: int = 0,
    block_size: int = 0,
    **others: object,
) -> tuple[Tensor, Tensor]:
    """Return the attention of sequences in one row, causal, and an lse of 0.

    ``actual_seq_lengths`` are cumulative. So are those of the keys, unless these are in blocks of
    ``block_table``; then each is the length of a sequence. The documentation allows a head size of 128 or 192
    in this layout. That is not checked: vllm-ascend's tests run Qwen2.5-0.5B, where it is 64
    (tests/e2e/doctests/001-quickstart-test.sh at v0.22.1rc1).

    Args:
        query: [tokens, heads, head size].
        key, value: the same with KV heads; with a block table [blocks, block size, KV heads * head size].
        block_table: int32 [sequences, blocks].
    """
    name = "npu_fused_infer_attention_score"
    refuse_others(name, others)
    if (input_layout, sparse_mode) != ("TND", RIGHT_DOWN_CAUSAL):
        raise NotImplementedError(f"{name} has no stand-in for {input_layout} in sparse mode {sparse_mode}")
    if query.dtype not in ATTENTION_DTYPES or atten_mask is None or atten_mask.shape != MASK_SIZE:
        raise RuntimeError(f"{name}: needs float16 or bfloat16 and a mask of {MASK_SIZE}")
    if block_table is not None and block_size != key.shape[1]:
        raise RuntimeError(f"{name}: blocks of {key.shape[1]} tokens, not {block_size}")
    heads = num_key_value_heads or num_heads
    output = torch.zeros_like(query)
    for sequence, (start, stop) in enumerate(pairwise([0, *actual_seq_lengths])):
        length = actual_seq_lengths_kv[sequence]
        if block_table is None:
            rows = slice(actual_seq_lengths_kv[sequence - 1] if sequence else 0, length)
            keys, values = key[rows], value[rows]
        else:
            keys, values = (_gather(cache, block_table[sequence], length) for cache in (key, value))
        if start < stop:
            keys, values = (
                tensor.unflatten(-1, (heads, -1)) if tensor.dim() == 2 else tensor
                for tensor in (keys, values)
            )
            output[start:stop] = _causal_attention(query[start:stop], keys, values, scale)
    return output, torch.zeros(1)


def _gather(cache: Tensor, blocks: Tensor, length: int) -> Tensor:
    """Return the first ``length`` tokens of a sequence."""
    needed = -(-length // cache.shape[1])
    return cache[blocks[:needed].long()].flatten(0, 1)[:length]


def _causal_attention(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Return the attention of one sequence; its last query sees every key."""
    tokens, length = len(query), len(keys)
    repeats = query.shape[1] // keys.shape[1]
    keys, values = (tensor.float().repeat_interleave(repeats, dim=1) for tensor in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", query.float() * scale, keys)
    hidden = torch.ones(tokens, length, dtype=torch.bool).triu(1 + length - tokens)
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values).to(query.dtype)


@operator("npu_grouped_matmul")
def grouped_matmul(
    x: list[Tensor],
    weight: list[Tensor],
    *,
    group_list: Tensor,
    split_item: int = 0,
    group_type: int | None = None,
    group_list_type: int = 0,
    **others: object,
) -> list[Tensor]:
    """Multiply the rows of each group with the group's matrix; rows after the last group are undefined.

    Args:
        x: one tensor [rows, k]; weight: one tensor [groups, k, n].
    """
    name = "npu_grouped_matmul"
    refuse_others(name, {key: value for key, value in others.items() if key != "act_type" or value})
    (rows,), (weights,) = x, weight
    if group_type != 0 or split_item not in (2, 3) or group_list_type != COUNTS:
        raise NotImplementedError(f"{name} has a stand-in for rows in one tensor, grouped by counts")
    output = torch.zeros(len(rows), weights.shape[-1], dtype=rows.dtype)
    counts = group_list.tolist()
    parts = rows[: sum(counts)].split(counts)
    products = [part.float() @ matrix.float() for part, matrix in zip(parts, weights, strict=True)]
    output[: sum(counts)] = torch.cat(products).to(rows.dtype)
    return [output]


@operator("npu_moe_token_unpermute")
def moe_token_unpermute(
    permuted_tokens: Tensor,
    sorted_indices: Tensor,
    probs: Tensor | None = None,
    padded_mode: bool = False,
    restore_shape: Sequence[int] | None = None,
) -> Tensor:
    """Return each token's sum of its rows, weighted by ``probs`` [tokens, top k].

    torch_npu/_op_plugin_docs.py of the wheel documents it.
    """
    refuse_others("npu_moe_token_unpermute", {"padded_mode": padded_mode, "probs=None": probs is None})
    rows = permuted_tokens[sorted_indices.long()].float().unflatten(0, probs.shape)  # [tokens, top k, hidden]
    return (rows * probs.float()[..., None]).sum(1).to(permuted_tokens.dtype)


@operator("atb::_npu_reshape_and_cache")
def reshape_and_cache(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_indices: Tensor
) -> None:
    """Write keys and values [tokens, KV heads, head size] to their slots; a negative slot is padding."""
    used = slot_indices >= 0
    slots = slot_indices[used].long()
    for tokens, cache in ((key, key_cache), (value, value_cache)):
        cache.flatten(0, 1)[slots] = tokens[used]


@operator("atb::_npu_rotary_embedding")
def rotary_embedding(
    positions: Tensor, query: Tensor, key: Tensor, head_size: int, cos_sin_cache: Tensor, is_neox_style: bool
) -> None:
    """Rotate halves of the heads of ``query`` and ``key`` [tokens, heads * head size] in place.

    Cosines and sines are those of the first call in the process: op_plugin/ops/atb/RopeAtb.cpp,
    ``InitializeCosSinCache``.
    """
    refuse_others("_npu_rotary_embedding", {"is_neox_style=False": not is_neox_style})
    table = _first_table[0] if _first_table else cos_sin_cache.clone()
    _first_table[:] = [table]
    cos, sin = table[positions.flatten()].float()[:, None].chunk(2, dim=-1)  # [tokens, 1, head size / 2]
    for tokens in (query, key):
        heads = tokens.view(len(tokens), -1, head_size)
        first, second = heads.float().chunk(2, dim=-1)
        heads.copy_(torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1))


_first_table: list[Tensor] = []


@operator("atb::_npu_matmul_add_fp32")
def matmul_add_fp32(x: Tensor, weight: Tensor, C: Tensor) -> None:
    """Add x^T weight to ``C``; a worker calls it to warm up (op_plugin/ops/atb/LinearAtb.cpp)."""
    C += x.float().t() @ weight.float()
