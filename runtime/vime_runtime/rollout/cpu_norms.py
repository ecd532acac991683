"""RMSNorm on a CPU by vLLM's C++ kernels, which vLLM builds for CPUs but uses on GPUs only.

On a CPU vLLM relies on torch's compiler to fuse the norms. In an eager engine every operator of a norm would
be a pass over memory.
"""

from __future__ import annotations

import torch
from torch import Tensor
from vllm import ir
from vllm.platforms import current_platform

PROVIDER = "vime_cpu"
# The value of ``LLM(ir_op_priority=...)``; vLLM falls back to its own for arguments that are not supported.
PRIORITY = {"rms_norm": [PROVIDER], "fused_add_rms_norm": [PROVIDER]}


def register() -> None:
    """Register the kernels as an implementation of vLLM's operators, once in a process."""
    current_platform.import_kernels()
    ir.ops.rms_norm.register_impl(PROVIDER, supports_args=_supported)(_rms_norm)
    ir.ops.fused_add_rms_norm.register_impl(PROVIDER, supports_args=_supported_after_add, inplace=True)(
        _fused_add_rms_norm
    )


def _supported(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> bool:
    return variance_size is None and weight is not None and weight.dtype == x.dtype


def _supported_after_add(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    contiguous = x.is_contiguous() and x_residual.is_contiguous()
    return contiguous and _supported(x, weight, epsilon, variance_size)


def _rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None) -> Tensor:
    rows = x.contiguous()  # heads sliced from a wider tensor are not, and the kernel needs it
    output = torch.empty_like(rows)
    torch.ops._C.rms_norm(output, rows, weight, epsilon)
    return output


def _fused_add_rms_norm(
    x: Tensor, x_residual: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> tuple[Tensor, Tensor]:
    torch.ops._C.fused_add_rms_norm(x, x_residual, weight, epsilon)
    return x, x_residual
