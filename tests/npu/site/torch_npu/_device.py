"""Simulate the device "npu" of torch: every operator runs on the host, on the same memory.

Python only: torch lets a backend of its be registered from Python (``torch.utils.backend_registration``),
and one fallback for all of its operators (``torch.library``).
"""

from __future__ import annotations

import ctypes
import warnings
from types import ModuleType
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from torch_npu._memory import MEMORY

aten = torch.ops.aten
HOST = torch.device("cpu")
_CPU_KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_registrations: list[torch.library.Library] = []


def register(module: ModuleType) -> None:
    """Register the device. ``module`` becomes ``torch.npu``."""
    _setup_privateuseone_for_python_backend("npu", backend_module=module)
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(run, "PrivateUse1")
    own = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own.impl("empty.memory_format", _empty, "PrivateUse1")
        own.impl("empty_strided", _empty_strided, "PrivateUse1")
        own.impl("_copy_from", _copy_from, "PrivateUse1")
        own.impl("set_.source_Storage_storage_offset", _set_storage, "PrivateUse1")
        own.impl("resize_", _resize, "PrivateUse1")
    _registrations.extend((everything, own))


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """Return a host tensor on the same memory.

    Raises:
        RuntimeError: the memory is offloaded.
    """
    storage = tensor.untyped_storage()
    address = storage.data_ptr()
    block = MEMORY.blocks.get(address)
    if block is not None and block.gone:
        raise RuntimeError(f"NPU fault: address {address:#x} is not mapped (its region is offloaded)")
    alias = torch.empty(0, dtype=tensor.dtype)
    if storage.nbytes():
        alias.set_(_host_storage(storage), tensor.storage_offset(), tensor.size(), tensor.stride())
    else:
        alias = alias.as_strided(tensor.size(), tensor.stride())
    return alias


def _host_storage(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return torch._C._construct_storage_from_data_pointer(storage.data_ptr(), HOST, storage.nbytes())


def over(storage: torch.UntypedStorage, like: torch.Tensor) -> torch.Tensor:
    """Return a device tensor on a device storage, with the offset, shape and strides of ``like``."""
    tensor = torch._C._acc.create_empty_tensor((0,), like.dtype)
    return _set_storage(tensor, storage, like.storage_offset(), like.size(), like.stride())


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Run any operator on the host, on the same memory; new tensors move to the device."""
    known: dict[int, torch.UntypedStorage] = {}  # by address
    originals: list[tuple[torch.Tensor, torch.Tensor]] = []  # (of the device, of the host)

    def lower(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.device.type == "npu":
            alias = on_host(value)
            known[alias.untyped_storage().data_ptr()] = value.untyped_storage()
            originals.append((value, alias))
            return alias
        if isinstance(value, torch.UntypedStorage) and value.device.type == "npu":
            known[value.data_ptr()] = value
            return _host_storage(value)
        return HOST if isinstance(value, torch.device) and value.type == "npu" else value

    def raise_(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
            return value
        for original, alias in originals:
            if value is alias:
                return original
        storage = value.untyped_storage()
        mine = known.get(storage.data_ptr()) if storage.nbytes() else None
        if mine is None:
            mine = known[storage.data_ptr()] = _moved(storage)
        return over(mine, value)

    lowered_args, lowered_kwargs = tree_map(lower, args), tree_map(lower, kwargs)
    lowered_kwargs.pop("pin_memory", None)
    if (generator := lowered_kwargs.get("generator")) is not None and generator.device.type != "cpu":
        lowered_kwargs["generator"] = None
    before = [(alias.size(), alias.stride(), alias.data_ptr()) for _, alias in originals]
    result = op(*lowered_args, **lowered_kwargs)
    for (original, alias), was in zip(originals, before, strict=True):
        if (alias.size(), alias.stride(), alias.data_ptr()) != was:  # out= of another shape, t_()
            storage = alias.untyped_storage()
            _set_storage(
                original,
                known.get(storage.data_ptr()) or _moved(storage),
                alias.storage_offset(),
                alias.size(),
                alias.stride(),
            )
    return tree_map(raise_, result)


def _moved(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    mine = MEMORY.allocate(storage.nbytes())
    ctypes.memmove(mine.data_ptr(), storage.data_ptr(), storage.nbytes())
    return mine


def _fresh(like: torch.Tensor) -> torch.Tensor:
    return over(MEMORY.allocate(like.untyped_storage().nbytes()), like)


def _empty(size: Any, **options: Any) -> torch.Tensor:
    return _fresh(torch.empty(size, **options | {"device": "meta", "pin_memory": None}))


def _empty_strided(size: Any, stride: Any, **options: Any) -> torch.Tensor:
    return _fresh(torch.empty_strided(size, stride, **options | {"device": "meta", "pin_memory": None}))


def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _host(target).copy_(_host(source))
    return target


def _set_storage(
    tensor: torch.Tensor, storage: torch.UntypedStorage, offset: int, size: Any, stride: Any = ()
) -> torch.Tensor:
    return aten.set_.source_Storage_storage_offset.redispatch(_CPU_KEY, tensor, storage, offset, size, stride)


def _resize(tensor: torch.Tensor, size: Any, memory_format: Any = None) -> torch.Tensor:
    like = torch.empty(size, dtype=tensor.dtype, device="meta")
    storage, needed = tensor.untyped_storage(), tensor.storage_offset() * tensor.itemsize + like.nbytes
    if needed > storage.nbytes():
        larger = MEMORY.allocate(needed)
        ctypes.memmove(larger.data_ptr(), storage.data_ptr(), storage.nbytes())
        storage = larger
    return _set_storage(tensor, storage, tensor.storage_offset(), like.size(), like.stride())


def _host(tensor: torch.Tensor) -> torch.Tensor:
    return on_host(tensor) if tensor.device.type == "npu" else tensor
