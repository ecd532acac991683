"""Share device tensors between processes by handles, as torch_npu does in torch.multiprocessing."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
from torch.multiprocessing import reductions

from torch_npu import _books, _device, _npu
from torch_npu._memory import MEMORY, PAGE, construct

_released = reductions.reduce_tensor


def register() -> None:
    """Register with torch's reductions, as torch_npu does."""
    reductions.reduce_tensor = reduce_tensor
    reductions.rebuild_npu_tensor = rebuild_npu_tensor
    ForkingPickler.register(torch.Tensor, reduce_tensor)


def reduce_tensor(tensor: torch.Tensor) -> tuple[Any, tuple[Any, ...]]:
    """Return a function and its arguments; the seventh is the device index, as for CUDA and NPUs."""
    if tensor.device.type != "npu":
        return _released(tensor)
    storage = tensor.untyped_storage()
    block = MEMORY.blocks[storage.data_ptr()]
    if block.region:
        raise RuntimeError("aclrtIpcMemGetExportKey: memory of a pluggable allocator cannot be shared")
    handle = (os.getpid(), MEMORY.file, block.chip)
    _books.record("ipc_export", chip=block.chip, nbytes=storage.nbytes())
    return rebuild_npu_tensor, (
        type(tensor),
        tensor.size(),
        tensor.stride(),
        tensor.storage_offset(),
        torch.UntypedStorage,
        tensor.dtype,
        _npu.current_device(),
        handle,
        storage.nbytes(),
        block.offset,
        tensor.requires_grad,
    )


def rebuild_npu_tensor(
    tensor_cls: Any,
    tensor_size: Any,
    tensor_stride: Any,
    tensor_offset: int,
    storage_cls: Any,
    dtype: torch.dtype,
    storage_device: int,
    storage_handle: tuple[int, int, int],
    storage_size_bytes: int,
    storage_offset_bytes: int,
    requires_grad: bool,
) -> torch.Tensor:
    """Map the memory of a handle.

    Raises:
        RuntimeError: its owner has exited, or the memory is not on the chip of ``storage_device``.
    """
    pid, file, chip = storage_handle
    here = _books.visible()[storage_device]
    _books.record("ipc_open", chip=here, owner=pid, nbytes=storage_size_bytes)
    if here != chip:
        raise RuntimeError(f"aclrtIpcMemImportByKey: memory of chip {chip} cannot be mapped on chip {here}")
    storage = _map(f"/proc/{pid}/fd/{file}", storage_offset_bytes, storage_size_bytes)
    tensor = torch._C._acc.create_empty_tensor((0,), dtype)
    return _device._set_storage(tensor, storage, tensor_offset, tensor_size, tensor_stride)


def _map(path: str, offset: int, nbytes: int) -> torch.UntypedStorage:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as e:
        raise RuntimeError(f"aclrtIpcMemImportByKey: the memory's owner has exited ({e.strerror})") from e
    start = offset // PAGE * PAGE
    try:
        mapped = mmap.mmap(file, offset - start + nbytes, offset=start)
    finally:
        os.close(file)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped)) + offset - start
    storage = construct(address, nbytes)
    weakref.finalize(storage, lambda kept: None, mapped).atexit = False
    return storage
