"""Operators of the namespace ``npu`` that have a stand-in; any other raises an error that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from npu_operators.host import on_host

_STAND_INS: dict[str, Callable[..., Any]] = {}
# Those of torch_npu that launch no kernel: descriptions of storages, plain copies of memory, messages.
# torch_npu/csrc/aten/common: FormatCastKernelNpu.cpp, StorageSizeNpu.cpp, ChangeDataPtr.cpp,
# CopyMemoryKernel.cpp. Casts to other than base formats launch kernels.
KEPT = {
    "npu::get_npu_format", "npu::get_storage_size", "npu::npu_change_data_ptr", "npu::copy_memory_",
    "npu::set_op_timeout_ms",
}  # fmt: skip


def operator(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of CPU tensors as the operator ``npu::name`` (``name`` or ``name.overload``).

    The function gets aliases of the tensors of the device: what it writes to them is written on the device.
    It returns CPU tensors; see :func:`npu_operators.host.on_host`.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _STAND_INS[f"npu::{name}"] = function
        return function

    return register


def install() -> None:
    """Override every operator of the namespace ``npu`` that has a kernel for the device."""
    library = torch.library.Library("npu", "IMPL")
    for name in torch._C._dispatch_get_registrations_for_dispatch_key("PrivateUse1"):
        if name.startswith("npu::") and name not in KEPT:
            function = _STAND_INS.get(name)
            kernel = on_host(function, overload(name)._schema) if function else _missing(name)
            library.impl(name.removeprefix("npu::"), kernel, "PrivateUse1", allow_override=True)
    _LIBRARIES.append(library)


# A library takes its kernels back when it is deleted.
_LIBRARIES: list[torch.library.Library] = []


def overload(name: str) -> Any:
    """Return the operator ``namespace::name.overload``."""
    namespace, _, rest = name.partition("::")
    base, _, overload_name = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, namespace), base), overload_name or "default")


def _missing(name: str) -> Callable[..., Any]:
    def kernel(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"{name} has no stand-in")

    return kernel
