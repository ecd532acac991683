"""The operators of vllm-ascend's own namespace that Qwen3, dense and MoE, calls in an eager engine.

Schemas: csrc/torch_binding.cpp at v0.22.1rc1. vllm-ascend registers meta kernels for three more when it loads
the extension (meta_registration.py), so these are defined and have no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from npu_operators.host import on_host
from npu_operators.inference import refuse_others
from torch import Tensor

WITHOUT_KERNEL = (
    "get_masked_input_and_mask(Tensor input, int org_vocab_start_index, int org_vocab_end_index, "
    "int num_org_vocab_padding, int added_vocab_start_index, int added_vocab_end_index) -> (Tensor, Tensor)",
    "bgmv_expand(Tensor! x, Tensor! weight, Tensor! indices, Tensor! y, int slice_offset, int slice_size)"
    " -> Tensor",
    "sgmv_expand(Tensor! x, Tensor! weight, Tensor! lora_indices, Tensor! seq_len, Tensor! y, "
    "int slice_offset, int slice_size) -> Tensor",
)
EXPERT_COUNTS, GATHER_INDICES, UNQUANTIZED = 1, 0, -1


def add_rms_norm_bias(
    x1: Tensor, x2: Tensor, gamma: Tensor, beta: Tensor | None = None, epsilon: float = 1e-6
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the norm of a sum, the reciprocal of its root mean square, and the sum.

    Sum and normalized rows are rounded to their dtype: csrc/moe/add_rms_norm_bias/op_kernel/
    add_rms_norm_bias_single_n.h, ``ProcessBf16``.
    """
    refuse_others("npu_add_rms_norm_bias", {"beta": beta})
    x = (x1.float() + x2.float()).to(x1.dtype)
    rstd = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon)
    y = (x.float() * rstd).to(x.dtype).float() * gamma.float()
    return y.to(x.dtype), rstd, x


def moe_gating_top_k(
    x: Tensor,
    k: int,
    k_group: int,
    group_count: int,
    group_select_mode: int,
    renorm: int,
    norm_type: int,
    out_flag: bool,
    routed_scaling_factor: float,
    eps: float,
    bias_opt: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights and ids of each token's ``k`` experts, by the softmax of its router logits.

    With ``renorm`` the weights add up to 1: csrc/moe/moe_gating_top_k/op_kernel/
    moe_gating_top_k_without_group.h:232.
    """
    others = {
        "groups": group_count > 1,
        "norm_type": bool(norm_type),
        "out_flag": out_flag,
        "bias_opt": bias_opt,
    }
    refuse_others("moe_gating_top_k", others)
    scores = x.float().softmax(-1)
    ids = scores.sort(dim=-1, stable=True, descending=True).indices[:, :k]
    weights = scores.gather(-1, ids)
    if renorm:
        weights = weights / (weights.sum(-1, keepdim=True) + eps)
    return (weights * routed_scaling_factor).to(x.dtype), ids.int(), torch.zeros(x.shape)


def moe_init_routing(
    x: Tensor,
    expert_idx: Tensor,
    *,
    active_num: int = -1,
    expert_num: int = -1,
    expert_tokens_num_type: int = 0,
    expert_tokens_num_flag: bool = False,
    quant_mode: int = 0,
    active_expert_range: Sequence[int] = (),
    **others: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the tokens sorted by expert, their rows there, tokens per expert, and an undefined tensor.

    As torch_npu's documentation of npu_moe_init_routing_v2. The row for an expert outside of the range is -1,
    and rows after the last expert's are undefined.

    Args:
        x: [tokens, hidden]; expert_idx: int32 [tokens, top k].
    """
    name = "npu_moe_init_routing_custom"
    refuse_others(name, {key: value for key, value in others.items() if value not in (-1, GATHER_INDICES)})
    kinds = expert_tokens_num_type, expert_tokens_num_flag, quant_mode, active_num
    if kinds != (EXPERT_COUNTS, True, UNQUANTIZED, expert_idx.numel()):
        raise NotImplementedError(f"{name} has no stand-in for {kinds}")
    first, last = active_expert_range
    experts = expert_idx.flatten().long()
    here = (experts >= first) & (experts < last)
    order = torch.where(here, experts, expert_num).argsort(stable=True)[: here.sum()]
    rows = torch.full(experts.shape, -1, dtype=torch.int32)
    rows[order] = torch.arange(len(order), dtype=torch.int32)
    expanded = torch.zeros(len(experts), x.shape[1], dtype=x.dtype)
    expanded[: len(order)] = x[order // expert_idx.shape[1]]
    counts = torch.bincount(experts[order] - first, minlength=last - first)
    return expanded, rows, counts, torch.zeros(len(experts))


KERNELS: dict[str, Callable[..., Any]] = {
    "npu_add_rms_norm_bias(Tensor x1, Tensor x2, Tensor gamma, Tensor? beta=None, float epsilon=1e-6)"
    " -> (Tensor y, Tensor rstd, Tensor x)": add_rms_norm_bias,
    "moe_gating_top_k(Tensor x, int k, int k_group, int group_count, int group_select_mode, int renorm, "
    "int norm_type, bool out_flag, float routed_scaling_factor, float eps, Tensor? bias_opt=None)"
    " -> (Tensor y, Tensor expert_idx, Tensor out)": moe_gating_top_k,
    "npu_moe_init_routing_custom(Tensor x, Tensor expert_idx, *, Tensor? scale=None, Tensor? offset=None, "
    "int active_num=-1, int expert_capacity=-1, int expert_num=-1, int drop_pad_mode=0, "
    "int expert_tokens_num_type=0, bool expert_tokens_num_flag=False, int quant_mode=0, "
    "int[2] active_expert_range=[], int row_idx_type=0)"
    " -> (Tensor, Tensor, Tensor, Tensor)": moe_init_routing,
}


def define() -> None:
    """Define the operators, as loading the extension does."""
    library = torch.library.Library("_C_ascend", "DEF")
    for schema in WITHOUT_KERNEL:
        library.define(schema)
    for schema, function in KERNELS.items():
        name = library.define(schema)
        library.impl(
            name, on_host(function, getattr(torch.ops._C_ascend, name).default._schema), "PrivateUse1"
        )
    _LIBRARIES.append(library)


# A library takes its operators back when it is deleted.
_LIBRARIES: list[torch.library.Library] = []
