"""Operators of the namespace ``npu`` that have a stand-in; any other raises an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from npu_operators.host import on_host

STAND_INS: dict[str, Callable[..., Any]] = {}
# Those of torch_npu that launch no kernel: descriptions of storages, plain copies of memory, messages.
# torch_npu/csrc/aten/common: FormatCastKernelNpu.cpp, StorageSizeNpu.cpp, ChangeDataPtr.cpp,
# CopyMemoryKernel.cpp.
KEPT = {
    "npu::get_npu_format", "npu::get_storage_size", "npu::npu_change_data_ptr", "npu::copy_memory_",
    "npu::set_op_timeout_ms", "npu::npu_format_cast", "npu::npu_format_cast.Tensor",
}  # fmt: skip
# What those for formats call. To one of these formats a cast changes the description of a storage alone.
CASTS = ("npu::_npu_format_cast", "npu::npu_format_cast_.acl_format")
BASE_FORMATS = {0: "ACL_FORMAT_NCHW", 2: "ACL_FORMAT_ND"}


def operator(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of CPU tensors as the operator ``npu::name``; an overload is ``name.overload``.

    The function gets aliases of the tensors of the device: what it writes to them is written on the device.
    It returns CPU tensors; see :func:`npu_operators.host.on_host`. ``aten::name`` registers one of PyTorch's
    operators, for which the CPU has no kernel.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        STAND_INS[name if "::" in name else f"npu::{name}"] = function
        return function

    return register


def install() -> None:
    """Override every operator of torch_npu's own namespaces that has a kernel for the device."""
    libraries = {namespace: torch.library.Library(namespace, "IMPL") for namespace in ("npu", "atb")}
    for name in torch._C._dispatch_get_registrations_for_dispatch_key("PrivateUse1"):
        namespace, _, rest = name.partition("::")
        if namespace in libraries and name not in KEPT:
            function = STAND_INS.get(name)
            if name in CASTS:
                kernel = _base_format_only(name)
            else:
                kernel = on_host(function, overload(name)._schema) if function else _missing(name)
            libraries[namespace].impl(rest, kernel, "PrivateUse1", allow_override=True)
    _LIBRARIES.extend(libraries.values())


# A library takes its kernels back when it is deleted.
_LIBRARIES: list[torch.library.Library] = []


def overload(name: str) -> Any:
    """Return the operator ``namespace::name.overload``."""
    namespace, _, rest = name.partition("::")
    base, _, overload_name = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), base), overload_name or "default")


def _base_format_only(name: str) -> Callable[..., Any]:
    cast = torch.library.get_kernel(name, "PrivateUse1")
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.PrivateUse1)

    def kernel(tensor: torch.Tensor, acl_format: int, **named: Any) -> torch.Tensor:
        if acl_format not in BASE_FORMATS:
            raise NotImplementedError(f"{name} has no stand-in for the format {acl_format}")
        return cast.call_boxed(keys, tensor, acl_format, **named)

    return kernel


def _missing(name: str) -> Callable[..., Any]:
    def kernel(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{name} has no stand-in")

    return kernel
