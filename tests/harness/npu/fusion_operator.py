"""``torch_npu.npu_fusion_attention`` in plain torch, written from its documentation alone.

Source: op-plugin, ``docs/context/torch_npu-npu_fusion_attention.md``: softmax(scale * Q K^T, masked) V. What
the documentation forbids is refused, and what this project has no use for is not there: dropout, position
shifts, and modes other than 0 without a mask, 2 and 3.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEFT_UP_CAUSAL, RIGHT_DOWN_CAUSAL = 2, 3
# "the optimised, compressed lower triangle": True is masked.
COMPRESSED = torch.ones(2048, 2048, dtype=torch.bool).triu(1)


def npu_fusion_attention(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:
    """Return the attention output, and six placeholders for the backward pass, which autograd does here."""
    assert pse is None
    assert padding_mask is None, "not supported by the operator"
    assert prefix is None
    assert keep_prob == 1.0
    assert query.dtype == key.dtype == value.dtype
    assert key.shape == value.shape
    if atten_mask is None:
        sparse_mode = 0
    else:
        assert sparse_mode in (LEFT_UP_CAUSAL, RIGHT_DOWN_CAUSAL)
        assert torch.equal(atten_mask.cpu(), COMPRESSED), "modes 2 and 3 take the compressed mask alone"
    assert input_layout == "TND", "the only layout that is used"
    assert query.shape[1] == head_num
    cut = _cut(query, actual_seq_qlen), _cut(key, actual_seq_kvlen), _cut(value, actual_seq_kvlen)
    output = torch.cat([
        _attend(*(tensor.transpose(0, 1) for tensor in parts), scale, sparse_mode).transpose(0, 1)
        for parts in zip(*cut, strict=True)
    ])  # fmt: skip
    nothing = torch.empty(0)
    return output, nothing, nothing, nothing, 0, 0, 0


def _cut(tensor: Tensor, ends: list[int] | None) -> list[Tensor]:
    """Return the sequences of [T, N, D]; ``ends`` has the cumulative lengths."""
    assert isinstance(ends, list), "a list of integers on the host"
    assert 0 < len(ends) <= 1024, "at most 1K sequences"
    assert ends[-1] == tensor.shape[0], "the last end is the number of rows"
    return list(tensor.tensor_split(ends[:-1]))


def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float, sparse_mode: int) -> Tensor:
    """[..., N, Sq, D] with keys and values [..., Nkv, Skv, D]."""
    heads, groups = query.shape[-3], key.shape[-3]
    assert heads % groups == 0, "query heads are a multiple of key/value heads"
    key, value = (tensor.repeat_interleave(heads // groups, dim=-3) for tensor in (key, value))
    scores = scale * (query.float() @ key.float().transpose(-1, -2))
    queries, keys = scores.shape[-2:]
    if sparse_mode:
        assert sparse_mode != RIGHT_DOWN_CAUSAL or queries <= keys, "a row that attends to nothing"
        right = keys - queries if sparse_mode == RIGHT_DOWN_CAUSAL else 0
        masked = torch.ones(queries, keys, dtype=torch.bool, device=query.device).triu(1 + right)
        scores = scores.masked_fill(masked, float("-inf"))
    return (scores.softmax(-1) @ value.float()).to(query.dtype)
