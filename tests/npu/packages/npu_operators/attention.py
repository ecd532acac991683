"""``npu_fusion_attention`` and its gradient, from op-plugin's documentation.

docs/zh/custom_APIs/torch_npu/torch_npu-npu_fusion_attention.md: softmax(scale * Q K^T, masked) V. What the
documentation forbids is refused, and so is what this project has no use for: dropout, position shifts, sinks,
layouts other than TND, and modes other than 0 without a mask, 2 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from npu_operators.registry import operator

LEFT_UP_CAUSAL, RIGHT_DOWN_CAUSAL = 2, 3
# "the optimised, compressed lower triangle": True is masked.
COMPRESSED = torch.ones(2048, 2048, dtype=torch.bool).triu(1)
MAX_SEQUENCES = 1024  # "at most 1K" sequences of varying length
# Maximum and sum of a row are stored this many times
# (op_plugin/ops/opapi/FlashAttentionKernelNpuOpApi.cpp, SOFTMAXMAX_LAST_DIMSHAPE).
COPIES = 8


@operator("npu_fusion_attention")
def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    pse: Tensor | None = None,
    padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = 2147483647,
    next_tockens: int = 2147483647,
    inner_precise: int = 0,
    prefix: list[int] | None = None,
    actual_seq_qlen: list[int] | None = None,
    actual_seq_kvlen: list[int] | None = None,
    sparse_mode: int = 0,
    gen_mask_parallel: bool = True,
    sync: bool = False,
    softmax_layout: str = "",
    **unused: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:
    """Return the attention output [T, N, D], maximum and sum of each row [T, N, 8], and four placeholders."""
    assert keep_prob == 1.0
    assert not any(unused.values()), f"not in the stand-in: {unused}"
    masks = {"pse": pse, "padding_mask": padding_mask, "prefix": prefix}
    _check(query, key, value, head_num, input_layout, atten_mask, sparse_mode, masks)
    output = torch.empty_like(query)
    maximum, total = (query.new_empty(*query.shape[:2], COPIES, dtype=torch.float32) for _ in range(2))
    causal = 0 if atten_mask is None else sparse_mode
    for rows, columns in _sequences(query, key, actual_seq_qlen, actual_seq_kvlen):
        scores = _scores(query[rows], key[columns], scale, causal)
        largest = scores.amax(-1, keepdim=True)
        weights = (scores - largest).exp()
        sums = weights.sum(-1, keepdim=True)
        product = (weights / sums) @ _heads(value[columns], head_num)
        output[rows] = product.transpose(0, 1).to(output.dtype)
        maximum[rows], total[rows] = largest.transpose(0, 1), sums.transpose(0, 1)
    return output, maximum, total, query.new_empty(0), 0, 0, 0


@operator("npu_fusion_attention_grad")
def backward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dy: Tensor,
    head_num: int,
    input_layout: str,
    *,
    atten_mask: Tensor | None = None,
    softmax_max: Tensor,
    softmax_sum: Tensor,
    attention_in: Tensor,
    scale_value: float = 1.0,
    actual_seq_qlen: list[int] | None = None,
    actual_seq_kvlen: list[int] | None = None,
    sparse_mode: int = 0,
    **unused: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value, and empty ones of position shifts and sinks."""
    _check(query, key, value, head_num, input_layout, atten_mask, sparse_mode, {})
    gradients = tuple(torch.empty_like(tensor) for tensor in (query, key, value))
    causal = 0 if atten_mask is None else sparse_mode
    for rows, columns in _sequences(query, key, actual_seq_qlen, actual_seq_kvlen):
        scores = _scores(query[rows], key[columns], scale_value, causal)
        largest, sums = (tensor[rows, :, :1].transpose(0, 1) for tensor in (softmax_max, softmax_sum))
        weights = (scores - largest).exp() / sums
        outer, output = (tensor[rows].float().transpose(0, 1) for tensor in (dy, attention_in))
        inner = outer @ _heads(value[columns], head_num).transpose(-1, -2)
        inner = scale_value * weights * (inner - (outer * output).sum(-1, keepdim=True))
        for gradient, part, index in zip(
            gradients,
            (
                inner @ _heads(key[columns], head_num),
                inner.transpose(-1, -2) @ query[rows].float().transpose(0, 1),
                weights.transpose(-1, -2) @ outer,
            ),
            (rows, columns, columns),
            strict=True,
        ):
            # Query heads of a group share a key/value head, whose gradient is the sum of theirs.
            grouped = part.unflatten(0, (gradient.shape[1], -1)).sum(1)
            gradient[index] = grouped.transpose(0, 1).to(gradient.dtype)
    return *gradients, query.new_empty(0), query.new_empty(0, dtype=torch.float32)


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    atten_mask: Tensor | None,
    sparse_mode: int,
    unused: dict[str, Any],
) -> None:
    assert all(value is None for value in unused.values()), f"not in the stand-in: {unused}"
    assert query.dtype == key.dtype == value.dtype
    assert key.shape == value.shape
    assert input_layout == "TND", "the only layout that is used"
    assert query.shape[1] == head_num
    assert head_num % key.shape[1] == 0, "query heads are a multiple of key/value heads"
    if atten_mask is not None:
        assert sparse_mode in (LEFT_UP_CAUSAL, RIGHT_DOWN_CAUSAL)
        assert torch.equal(atten_mask.cpu(), COMPRESSED), "modes 2 and 3 take the compressed mask alone"


def _sequences(
    query: Tensor, key: Tensor, query_ends: list[int], key_ends: list[int]
) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of the queries and of the keys of each sequence; ends are cumulative lengths."""
    for tensor, ends in ((query, query_ends), (key, key_ends)):
        assert isinstance(ends, list), "a list of integers on the host"
        assert 0 < len(ends) <= MAX_SEQUENCES, "at most 1K sequences"
        assert ends[-1] == tensor.shape[0], "the last end is the number of rows"
    first = left = 0
    for last, right in zip(query_ends, key_ends, strict=True):
        yield slice(first, last), slice(left, right)
        first, left = last, right


def _heads(tensor: Tensor, head_num: int) -> Tensor:
    """Return keys or values [T, Nkv, D] as [N, T, D], in fp32."""
    return tensor.float().transpose(0, 1).repeat_interleave(head_num // tensor.shape[1], dim=0)


def _scores(query: Tensor, key: Tensor, scale: float, causal: int) -> Tensor:
    """Return scaled and masked scores [N, Tq, Tkv] of [Tq, N, D] and [Tkv, Nkv, D]."""
    scores = scale * (query.float().transpose(0, 1) @ _heads(key, query.shape[1]).transpose(-1, -2))
    queries, keys = scores.shape[-2:]
    if causal:
        assert causal != RIGHT_DOWN_CAUSAL or queries <= keys, "a row that attends to nothing"
        right = keys - queries if causal == RIGHT_DOWN_CAUSAL else 0
        masked = torch.ones(queries, keys, dtype=torch.bool, device=query.device).triu(1 + right)
        scores = scores.masked_fill(masked, float("-inf"))
    return scores
