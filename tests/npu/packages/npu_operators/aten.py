"""Override the operators of PyTorch that torch_npu registers: compute them with the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from npu_operators.generator import on_current_device, seeded
from npu_operators.host import alias, on_host
from npu_operators.registry import STAND_INS, overload

# torch_npu's own stay where they allocate, view, resize or copy memory and launch no kernel
# (torch_npu/csrc/aten/common, by file). What they call through the dispatcher is overridden here.
KEPT = {
    # TensorFactories.cpp
    "empty.memory_format", "empty_strided", "empty_like", "new_empty_strided", "empty_with_format",
    "unsafe_empty_with_format", "empty_with_swapped_memory",
    # TensorShape.cpp, NpuFastReshape.cpp
    "as_strided", "as_strided_", "view", "_reshape_alias", "unfold", "squeeze", "squeeze.dim", "unsqueeze",
    # SetNpu.cpp, ResizeNpu.cpp (copies by aclrtMemcpy)
    "set_", "set_.source_Storage", "set_.source_Storage_storage_offset", "set_.source_Tensor", "resize_",
    "resize_as_",
    # TensorProperties.cpp
    "contiguous", "is_set_to",
    # ToKernelNpu.cpp: replaces double by float
    "_to_copy",
    # LocalScalarDenseNpu.cpp (aclrtMemcpy), PinMemory.cpp, StreamAndEventKernelNpu.cpp
    "_local_scalar_dense", "_pin_memory", "is_pinned", "record_stream",
    # FlattenDenseTensorsKernelNpu.cpp
    "flatten_dense_tensors",
}  # fmt: skip


PRODUCTS = {f"aten::{name}" for name in ("mm", "bmm", "addmm", "baddbmm", "matmul")}
# Bound here because adapters such as MindSpeed's replace functions of torch later.
_empty, _empty_like = torch.empty, torch.empty_like


def install() -> None:
    """Override every operator of the namespace ``aten`` that has a kernel for the device."""
    library = torch.library.Library("aten", "IMPL")
    copy = torch.library.get_kernel("aten::copy_", "PrivateUse1")
    own = {"copy_": _copying(copy), "clone": _clone, "_copy_from_and_resize": _copy_from_and_resize}
    for name in torch._C._dispatch_get_registrations_for_dispatch_key("PrivateUse1"):
        namespace, _, rest = name.partition("::")
        if namespace == "aten" and rest not in KEPT:
            library.impl(rest, own.get(rest) or _first_call(name), "PrivateUse1", allow_override=True)
    _LIBRARIES.append(library)


# A library takes its kernels back when it is deleted.
_LIBRARIES: list[torch.library.Library] = []


def _first_call(name: str) -> Callable[..., Any]:
    """Return the CPU's operator as a kernel of the device; prepare it when it is called first."""
    kernel: Callable[..., Any] | None = None

    def call(*args: Any, **named: Any) -> Any:
        nonlocal kernel
        if kernel is None:
            kernel = _of_the_cpu(name)
        return kernel(*args, **named)

    return call


def _of_the_cpu(name: str) -> Callable[..., Any]:
    operator = overload(name)
    if name in STAND_INS:
        return on_host(STAND_INS[name], operator._schema)
    if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, "CPU"):
        raise NotImplementedError(f"{name} has no stand-in")
    if name in PRODUCTS:
        return on_host(_in_fp32(operator._op), operator._schema)
    if torch.Tag.nondeterministic_seeded in operator.tags:
        takes_generator = any(a.name == "generator" for a in operator._schema.arguments)
        return on_current_device(on_host(seeded(operator._op, takes_generator), operator._schema))
    return on_host(operator._op, operator._schema)


def _in_fp32(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Compute a product of bf16 or fp16 tensors in fp32 and round it once, as the device accumulates.

    A CPU without instructions for bf16 takes 37 times as long for it (512 x 256 x 512, AVX2).
    """

    def product(*args: Any, **named: Any) -> Tensor:
        dtype = args[0].dtype
        if dtype not in (torch.bfloat16, torch.float16):
            return operator(*args, **named)
        args = tuple(value.float() if isinstance(value, Tensor) else value for value in args)
        return operator(*args, **named).to(dtype)

    return product


def _copying(copy: Any) -> Callable[..., Any]:
    """Return ``copy_``: torch_npu's own where it copies bytes by aclrtMemcpy between host and device.

    Between tensors of devices, and to a tensor of the device with gaps, it launches kernels
    (torch_npu/csrc/aten/common/CopyKernel.cpp, ``copy_d2d`` and ``copy_h2d_baseformat``).
    """
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)

    def kernel(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        if target.is_cpu or (source.is_cpu and target.is_contiguous()):
            return copy.call_boxed(keys, target, source, non_blocking)
        if source.is_cpu:
            source = _empty(target.size(), dtype=target.dtype, device=target.device).copy_(source)
        alias(target).copy_(alias(source))
        return target

    return kernel


def _clone(tensor: Tensor, memory_format: torch.memory_format | None = None) -> Tensor:
    """Copy a tensor; CloneKernelOpApi.cpp keeps or drops strides in the same way."""
    if memory_format in (None, torch.preserve_format):
        return _empty_like(tensor).copy_(tensor)
    return _empty(tensor.size(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def _copy_from_and_resize(source: Tensor, target: Tensor) -> Tensor:
    return target.resize_(source.size()).copy_(source)
