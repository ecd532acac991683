"""Operators that Megatron, MindSpeed and autograd call in training.

Sources are paths in op-plugin: docs/ is docs/zh/custom_APIs/torch_npu/, opapi/ is op_plugin/ops/opapi/.
Values in bf16 and fp16 are computed in fp32 and rounded once, as the device's vector unit does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from npu_operators.registry import operator


@operator("npu_rms_norm")
def rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Return x / rms(x) * gamma over the dimensions of gamma, and 1 / rms(x) in fp32.

    docs/（beta）torch_npu-npu_rms_norm.md, opapi/RmsNormKernelOpApi.cpp.
    """
    rstd = torch.rsqrt(x.float().square().mean(_last(gamma), keepdim=True) + epsilon)
    return (x.float() * rstd * gamma.float()).to(x.dtype), rstd


@operator("npu_rms_norm_backward")
def rms_norm_backward(dy: Tensor, x: Tensor, gamma: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, in its dtype, and of gamma, in fp32.

    opapi/RmsNormBackwardKernelOpApi.cpp.
    """
    normal = x.float() * rstd
    dgamma = (dy.float() * normal).flatten(0, x.dim() - gamma.dim() - 1).sum(0)
    scaled = dy.float() * gamma.float()
    dx = rstd * (scaled - normal * (scaled * normal).mean(_last(gamma), keepdim=True))
    return dx.to(x.dtype), dgamma


def _last(gamma: Tensor) -> list[int]:
    return list(range(-gamma.dim(), 0))


@operator("npu_swiglu")
def swiglu(x: Tensor, dim: int = -1) -> Tensor:
    """Return silu(a) * b of the halves a and b (docs/（beta）torch_npu-npu_swiglu.md)."""
    a, b = x.float().chunk(2, dim)
    return (silu(a) * b).to(x.dtype)


@operator("npu_swiglu_backward")
def swiglu_backward(dy: Tensor, x: Tensor, dim: int = -1) -> Tensor:
    a, b = x.float().chunk(2, dim)
    gate = torch.sigmoid(a)
    grad = dy.float()
    return torch.cat([grad * b * gate * (1 + a * (1 - gate)), grad * a * gate], dim).to(x.dtype)


@operator("npu_rotary_mul")
def rotary_mul(
    x: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half", rotate: Tensor | None = None
) -> Tensor:
    """Return x * cos + rotate(x) * sin (docs/torch_npu-npu_rotary_mul.md)."""
    assert rotate is None, "a matrix for the rotation is not in the stand-in"
    return (x.float() * r1.float() + _rotate(x.float(), rotary_mode) * r2.float()).to(x.dtype)


@operator("npu_rotary_mul_backward")
def rotary_mul_backward(
    grad: Tensor, x: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half"
) -> tuple[Tensor, Tensor, Tensor]:
    dy = grad.float()
    # The rotation is orthogonal with the square -1, so its transpose is its negative.
    dx = dy * r1.float() - _rotate(dy * r2.float(), rotary_mode)
    dcos = (dy * x.float()).sum_to_size(r1.shape)
    dsin = (dy * _rotate(x.float(), rotary_mode)).sum_to_size(r2.shape)
    return dx.to(x.dtype), dcos.to(x.dtype), dsin.to(x.dtype)


def _rotate(x: Tensor, mode: str) -> Tensor:
    if mode == "half":
        first, second = x.chunk(2, -1)
        return torch.cat([-second, first], -1)
    assert mode == "interleave", mode
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)


@operator("_npu_dtype_cast")
@operator("_npu_dtype_cast_backward")
def dtype_cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype, copy=True)


@operator("npu_dtype_cast_")
def dtype_cast_(x: Tensor, source: Tensor) -> Tensor:
    return x.copy_(source)


@operator("npu_gather_backward")
def gather_backward(grad: Tensor, size: list[int], dim: int, index: Tensor, sparse_grad: bool) -> Tensor:
    """Return the gradient of ``gather`` (opapi/GatherKernelNpuOpApi.cpp)."""
    return torch.zeros(size, dtype=grad.dtype).scatter_add_(dim, index, grad)


@operator("repeat_interleave_backward_int")
def repeat_interleave_backward(grad: Tensor, x: Tensor, repeats: int, dim: int | None = None) -> Tensor:
    """Sum over the copies of each element (opapi/RepeatInterleaveBackwardKernelOpApi.cpp)."""
    axis = (-1 if dim is None else dim) % grad.dim()
    return grad.unflatten(axis, (-1, repeats)).sum(axis + 1).view(x.shape)


@operator("repeat_interleave_backward_tensor")
def repeat_interleave_backward_of_each(
    grad: Tensor, x: Tensor, repeats: Tensor, dim: int | None = None
) -> Tensor:
    axis = (-1 if dim is None else dim) % grad.dim()
    count = x.numel() if dim is None else x.shape[axis]
    source = torch.arange(count).repeat_interleave(repeats.expand(count))
    shape = [count if number == axis else size for number, size in enumerate(grad.shape)]
    return torch.zeros(shape).index_add_(axis, source, grad.float()).to(grad.dtype).view(x.shape)


@operator("aten::matmul_backward")
def matmul_backward(
    grad: Tensor, x: Tensor, y: Tensor, mask: list[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of a product of vectors, matrices or batches (opapi/MatmulKernelNpuOpApi.cpp)."""
    left, right = (x if x.dim() > 1 else x[None]), (y if y.dim() > 1 else y[:, None])
    dy = grad.float().reshape(*torch.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], -1)
    dx = dy @ right.float().mT if mask[0] else None
    if mask[1] and right.dim() == 2:  # One product instead of a sum over the batch.
        d = left.float().flatten(0, -2).T @ dy.flatten(0, -2)
    else:
        d = left.float().mT @ dy if mask[1] else None
    return tuple(
        None if part is None else part.sum_to_size(like.shape).view(of.shape).to(of.dtype)
        for part, like, of in ((dx, left, x), (d, right, y))
    )
