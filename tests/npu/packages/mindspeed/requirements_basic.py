"""The feature requirements-basic: torch, and packages that Megatron-core looks for and no NPU has.

References are to features_manager/megatron_basic/requirements_basic.py (F) and
core/megatron_basic/requirements_basic.py (C).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mindspeed.adamw import AdamW
from mindspeed.patches import invent, replace

# Each of these is torch.nn.Module: F:36-52.
TRANSFORMER_ENGINE = {
    "pytorch": ("LayerNorm", "LayerNormLinear", "DotProductAttention", "Linear", "GroupedLinear"),
    "pytorch.distributed": ("CudaRNGStatesTracker", "activation_recompute_forward"),
    "pytorch.fp8": ("fp8_autocast", "FP8GlobalStateManager"),
    "pytorch.ops": ("Sequential", "GELU", "GEGLU", "SwiGLU", "ReLU", "ReGLU", "FusibleOperation"),
    "pytorch.tensor": ("QuantizedTensor",),  # transformer_engine_basic.py:47
    "common.recipe": ("DelayedScaling",),
}


def apply() -> None:
    """Replace what the trainer meets, before Megatron-core is imported."""
    replace(torch, "compile", uncompiled)
    replace(torch.jit, "script", uncompiled)
    replace(importlib.metadata, "version", _with_transformer_engine(importlib.metadata.version))
    for path, names in TRANSFORMER_ENGINE.items():
        invent(f"transformer_engine.{path}", **dict.fromkeys(names, torch.nn.Module))
    invent("amp_C", multi_tensor_l2norm=multi_tensor_l2norm, multi_tensor_scale=multi_tensor_scale)
    invent(
        "apex.multi_tensor_apply", multi_tensor_applier=lambda op, flag, lists, *rest: op(flag, lists, *rest)
    )
    invent("apex.optimizers", FusedAdam=AdamW, FusedSGD=torch.optim.SGD)  # F:77-78
    for cls in (torch.nn.parameter.Parameter, Tensor):
        cls.type = _as_cuda(cls.type)
    Tensor.view = _contiguous_first(Tensor.view)
    replace(dist, "all_reduce", _without_doubles(dist.all_reduce))


def uncompiled(*args: Any, **kwargs: Any) -> Any:
    """Return the function itself, or a decorator that does: C:90."""
    if args and callable(args[0]):
        return lambda *a, **k: args[0](*a, **k)
    return lambda function: lambda *a, **k: function(*a, **k)


def _with_transformer_engine(version: Callable[..., str]) -> Callable[..., str]:
    """Claim 2.2.0 of transformer-engine, which is not installed: C:6."""
    return lambda name, *args, **kwargs: (
        "2.2.0" if name == "transformer-engine" else version(name, *args, **kwargs)
    )


def multi_tensor_l2norm(flag: Tensor, lists: list[list[Tensor]], per_parameter: bool) -> tuple[Any, Any]:
    """Return the norm of all tensors: C:18. The trainer needs none per parameter."""
    total = sum(torch.norm(tensor, 2.0) ** 2.0 for tensors in lists for tensor in tensors)
    return total**0.5, None


@torch.no_grad()
def multi_tensor_scale(flag: Tensor, lists: list[list[Tensor]], scale: float) -> None:
    """Write each tensor of the first list, scaled, into that of the second: C:34."""
    for source, target in zip(*lists, strict=True):
        target.copy_(source * scale)


def _as_cuda(original: Callable[..., Any]) -> Callable[..., Any]:
    """Name an NPU's type as a GPU's, which Megatron's optimizer compares: C:45."""

    @wraps(original)
    def type(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        return found.replace("npu", "cuda") if isinstance(found, str) else found

    return type


def _contiguous_first(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Copy a tensor that is not contiguous: what is written through such a view is lost. C:56."""

    @wraps(original)
    def view(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return original(tensor.contiguous(), *args, **kwargs)

    return view


def _without_doubles(original: Callable[..., Any]) -> Callable[..., Any]:
    """Reduce a float32 copy of a float64 tensor. The sum is lost: it never reaches the tensor. C:73."""

    @wraps(original)
    def all_reduce(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if tensor.dtype != torch.double:
            return original(tensor, *args, **kwargs)
        if (handle := original(tensor.float(), *args, **kwargs)) is not None:
            handle.wait()
        return None

    return all_reduce
