"""Call CPU functions on tensors of the device: memory of the device is memory of the host."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CPU = torch.device("cpu")
# Bound here because adapters such as MindSpeed's replace functions of torch later.
_empty, _as_strided, _set, _resize = torch.empty, torch.as_strided, Tensor.set_, Tensor.resize_
_storage_at = torch._C._construct_storage_from_data_pointer
# Operators that also take tensors on the host: op-plugin moves indices
# (op_plugin/ops/opapi/IndexKernelNpuOpApi.cpp) as CUDA does.
_TAKE_HOST_TENSORS = {
    f"aten::{name}" for name in ("index", "index_put", "index_put_", "_index_put_impl_")
}  # fmt: skip


def alias(tensor: Tensor) -> Tensor:
    """Return a CPU tensor with the memory, size and strides of a tensor of the device."""
    storage = tensor.untyped_storage()
    memory = _storage_at(storage.data_ptr(), CPU, storage.nbytes())
    empty = _empty(0, dtype=tensor.dtype, device=CPU)
    return _set(empty, memory, tensor.storage_offset(), tensor.size(), tensor.stride())


def to_device(result: Tensor, device: torch.device) -> Tensor:
    """Return a new tensor of the device with the values of a CPU tensor.

    It is contiguous: op-plugin allocates a result by its sizes alone
    (torch_npu/csrc/framework/utils/OpPreparation.cpp, ``apply_tensor_without_format``).
    """
    new = _empty(result.size(), dtype=result.dtype, device=device)
    if result.is_contiguous():
        ctypes.memmove(new.data_ptr(), result.data_ptr(), result.nbytes)
    else:
        alias(new).copy_(result)
    return new


class Held:
    """The tensors among the arguments of a call: of the device with their aliases, and of the host."""

    __slots__ = ("host", "pairs", "views")

    def __init__(self, views: bool) -> None:
        self.views = views  # A result may share memory with an argument.
        self.pairs: list[tuple[Tensor, Tensor]] = []
        self.host: list[Tensor] = []

    def lower(self, value: Any) -> Any:
        """Return an argument with tensors of the device replaced by aliases."""
        if isinstance(value, Tensor):
            if value.is_cpu:
                self.host.append(value)
                return value
            host = alias(value)
            self.pairs.append((value, host))
            return host
        if isinstance(value, (list, tuple)):
            return [self.lower(entry) for entry in value]
        return value

    def lift(self, result: Any, device: torch.device) -> Any:
        """Return a result with its CPU tensors replaced by tensors of the device."""
        if isinstance(result, Tensor):
            return self._lift_tensor(result, device)
        if isinstance(result, (list, tuple)):
            return type(result)([self.lift(entry, device) for entry in result])
        return result

    def _lift_tensor(self, result: Tensor, device: torch.device) -> Tensor:
        if not result.is_cpu:
            return result
        for tensor, host in self.pairs:
            if result is host:
                return tensor
        if self.views:
            address = result.untyped_storage().data_ptr()
            for tensor, host in self.pairs:
                if address == host.untyped_storage().data_ptr():
                    return _view(tensor, result)
        return to_device(result, device)

    def check_devices(self, name: str, device: torch.device) -> None:
        """Refuse tensors of two devices; scalars may be on the host.

        torch_npu's generated registrations do so (torchnpugen/custom_functions.py, ``device_check``).
        """
        others = [t.device for t, _ in self.pairs if t.device != device] + [
            t.device for t in self.host if t.dim() and name not in _TAKE_HOST_TENSORS
        ]
        if others:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{device} and {others[0]}! (when computing {name})"
            )


def _view(tensor: Tensor, like: Tensor) -> Tensor:
    """Return a tensor of the device with the memory of ``tensor`` and the geometry of ``like``."""
    if tensor.dtype == like.dtype:
        return _as_strided(tensor, like.size(), like.stride(), like.storage_offset())
    empty = _empty(0, dtype=like.dtype, device=tensor.device)
    return _set(empty, tensor.untyped_storage(), like.storage_offset(), like.size(), like.stride())


def on_host(function: Callable[..., Any], schema: Any) -> Callable[..., Any]:
    """Return a kernel of an operator for tensors of the device that calls ``function`` with their aliases.

    A result that is an argument is returned as that argument, and one of an operator that returns views as a
    view of it. Any other is copied to memory of torch_npu's allocator.
    """
    name, mutable = schema.name, schema.is_mutable
    views = any(value.alias_info for value in schema.returns)
    kinds = [str(argument.type) for argument in schema.arguments]
    tensors = [number for number, kind in enumerate(kinds) if "Tensor" in kind]
    takes_device = any("Device" in kind for kind in kinds)
    outputs = {a.name for a in schema.arguments if a.kwarg_only and a.alias_info and a.alias_info.is_write}

    def kernel(*args: Any, **named: Any) -> Any:
        held, lowered, count = Held(views), list(args), len(args)
        for number in tensors:
            if number >= count:
                break
            lowered[number] = held.lower(lowered[number])
        for key, value in named.items():
            named[key] = held.lower(value)
        device = None
        if takes_device:
            device = named.get("device")
            named["device"] = CPU
        if held.pairs:
            device = held.pairs[0][0].device
            if len(held.pairs) + len(held.host) > 1:
                held.check_devices(name, device)
        if device is None:
            device = torch.device("npu", torch.npu.current_device())
        if mutable:
            result = _call_mutable(function, lowered, named, held, outputs)
        else:
            result = function(*lowered, **named)
        return held.lift(result, device)

    return kernel


def _call_mutable(
    function: Callable[..., Any], args: list[Any], named: dict[str, Any], held: Held, outputs: set[str]
) -> Any:
    """Call a function that writes to arguments, and give these the sizes it gave to their aliases."""
    try:
        result = function(*args, **named)
    except RuntimeError as error:
        if "not resizable" not in str(error):
            raise
    else:
        for tensor, host in held.pairs:
            if tensor.size() != host.size():
                _resize(tensor, host.size())
        return result
    # An alias cannot grow: compute outputs in memory of the host, and let torch_npu resize.
    grown = []
    for number, (tensor, host) in enumerate(held.pairs):
        for name in outputs:
            if named.get(name) is host:
                named[name] = _empty(0, dtype=tensor.dtype, device=CPU)
                held.pairs[number] = tensor, named[name]
                grown.append(held.pairs[number])
    result = function(*args, **named)
    for tensor, host in grown:
        _resize(tensor, host.size())
        alias(tensor).copy_(host)
    return result
