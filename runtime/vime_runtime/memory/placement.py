"""Tensors created inside a context live in an arena."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from vime_runtime.memory.arena import Arena

aten = torch.ops.aten


class Placement(TorchDispatchMode):
    """Moves every fresh CPU storage that an operator returns into the arena.

    A storage is fresh when none of the operator's inputs has it: results of views and in-place
    operators stay where they are, and so do tensors from outside. Temporaries are moved like
    everything else; their blocks are free again as soon as they are gone. ``torch.tensor(...)`` of
    Python values is no operator and stays out: among such constants are those of libraries that
    happen to be imported meanwhile, and they have to survive when a region's contents are dropped.
    """

    def __init__(self, arena: Arena) -> None:
        super().__init__()
        self._arena = arena

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is aten.empty.memory_format and (placed := self._empty(args, kwargs)) is not None:
            return placed
        if func is aten.zeros.default and (placed := self._empty(args, kwargs)) is not None:
            return placed.zero_()
        result = func(*args, **kwargs)
        known = {_address(tensor) for tensor in _tensors((args, kwargs))}
        moved: dict[int, torch.UntypedStorage] = {}
        for tensor in _tensors(result):
            address = _address(tensor)
            if address and address not in known and address not in self._arena:
                if address not in moved:
                    moved[address] = self._copy(tensor.untyped_storage())
                offset = tensor.storage_offset()
                tensor.set_(moved[address], offset, tensor.size(), tensor.stride())
        return result

    def _empty(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
        """A tensor straight in the arena: a large one must not exist twice, even for a moment."""
        if kwargs.get("layout") not in (None, torch.strided) or not _on_cpu(kwargs):
            return None
        like = torch.empty(*args, **{**kwargs, "device": "meta", "pin_memory": False})
        nbytes = like.untyped_storage().nbytes()
        if not nbytes:
            return None
        tensor = torch.empty(0, dtype=like.dtype, device="cpu")
        return tensor.set_(self._storage(nbytes), 0, like.size(), like.stride())

    def _copy(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        return self._storage(storage.nbytes()).copy_(storage)

    def _storage(self, nbytes: int) -> torch.UntypedStorage:
        # The storage keeps the ctypes block alive, and the block's end frees its place in the arena.
        return torch.frombuffer(self._arena.allocate(nbytes), dtype=torch.uint8).untyped_storage()


def _on_cpu(kwargs: Mapping[str, Any]) -> bool:
    device = kwargs.get("device")
    return device is None or torch.device(device).type == "cpu"


def _tensors(tree: Any) -> list[torch.Tensor]:
    leaves, _ = tree_flatten(tree)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _address(tensor: torch.Tensor) -> int:
    """Where a tensor's storage begins; 0 for a tensor that has no bytes in host memory."""
    if tensor.device.type != "cpu" or tensor.layout is not torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()
