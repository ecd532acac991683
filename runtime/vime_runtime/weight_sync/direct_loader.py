"""Write Hugging Face tensors straight into the parameters of a vLLM model, without vLLM's loaders.

vLLM's layerwise reload needs memory for a second copy of a module, which a colocated NPU does not have. This
loader writes each tensor to its place as soon as it is received. Everything that does not fit is an error.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import torch

from vime_runtime.weight_sync.param_slices import (
    ParamSlice,
    find_slices,
    remote_expert_shapes,
    restore_expert_parameters,
)


class DirectLoader:
    """One update of one rank's model: ``load`` every tensor once, in any order, then ``finish``.

    Create a new one for each update: the parameters of a module may have been replaced since.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """Find the slices of every parameter.

        Raises:
            ValueError: the slices do not cover the model's parameters exactly once, or the shape of a
                parameter does not follow from its module's sizes.
        """
        self._model = model
        self._padding: list[ParamSlice] = []
        self._slices: dict[str, list[ParamSlice]] = defaultdict(list)
        self._shapes = remote_expert_shapes(model)
        for part in find_slices(model):
            if part.tensor is None:
                self._padding.append(part)
            else:
                self._slices[part.tensor].append(part)
                self._shapes[part.tensor] = part.shape
        _check_coverage(model, [*self._padding, *(part for parts in self._slices.values() for part in parts)])
        # Number of rows received of each tensor that is not complete.
        self._missing = dict.fromkeys(self._shapes, 0)

    def load(
        self, name: str, tensor: torch.Tensor, full_shape: tuple[int, ...] | None = None, start: int = 0
    ) -> None:
        """Write this rank's part of a tensor, converted to the parameter's dtype.

        Args:
            tensor: the whole tensor, or the next of several parts in order. It may be overwritten when the
                copies queued on the device are done.
            full_shape: the shape of the whole tensor, if ``tensor`` is a part.
            start: the row of the whole tensor at which the part begins.

        Raises:
            ValueError: the tensor is unknown or repeated, or has a wrong shape; nothing is written then.
        """
        expected = self._shapes.get(name)
        if expected is None:
            raise ValueError(f"the weight update has a tensor {name}, which the model does not have")
        shape = tuple(tensor.shape) if full_shape is None else tuple(full_shape)
        if shape != expected:
            filled = ", ".join(part.parameter for part in self._slices[name]) or "an expert of another rank"
            raise ValueError(
                f"tensor {name} of the weight update has the shape {list(shape)}; "
                f"{filled} is filled from {list(expected)}"
            )
        received = self._missing.get(name)
        if received is None or start < received:
            raise ValueError(f"the weight update has tensor {name} twice")
        stop = start + len(tensor)
        if start > received or tuple(tensor.shape[1:]) != expected[1:] or stop > expected[0]:
            raise ValueError(
                f"rows {start} to {stop} of tensor {name}, {list(tensor.shape)}, do not follow row "
                f"{received} of {list(expected)} in the weight update"
            )
        for part in self._slices[name]:
            part.write(tensor, start)
        if stop < expected[0]:
            self._missing[name] = stop
        else:
            del self._missing[name]

    def finish(self) -> None:
        """Zero the padding of the vocabulary, and restore the layout of experts.

        Raises:
            ValueError: tensors are missing; the update stays open for them.
        """
        if self._missing:
            raise ValueError(
                f"the weight update lacks {len(self._missing)} of {len(self._shapes)} tensors: "
                f"{', '.join(self._missing)}"
            )
        for part in self._padding:
            part.write(None)
        restore_expert_parameters(self._model)


def _check_coverage(model: torch.nn.Module, slices: list[ParamSlice]) -> None:
    """Check that every element of every parameter is in exactly one slice, else raise ValueError.

    Elements are identified by address, however a parameter is sliced.
    """
    by_parameter: dict[str, list[ParamSlice]] = defaultdict(list)
    for part in slices:
        by_parameter[part.parameter].append(part)
    for name, parameter in model.named_parameters():
        covered = sum(part.target.numel() for part in by_parameter[name])
        if covered != parameter.numel() or _overlap(parameter, by_parameter[name]):
            raise ValueError(
                f"parameter {name}, {list(parameter.shape)}: the weight update would write {covered} of "
                f"{parameter.numel()} elements, or some of them twice"
            )


def _overlap(parameter: torch.Tensor, slices: list[ParamSlice]) -> bool:
    """Return True if two slices have an element in common.

    The slices of a parameter are boxes, which are disjoint if their ranges along some dimension are. Boxes
    here have at most one row of experts in common, so overlapping boxes are adjacent when sorted.
    """
    boxes = sorted(_box(parameter, part.target) for part in slices if part.target.numel())
    return any(
        all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))
        for one, other in pairwise(boxes)
    )


def _box(parameter: torch.Tensor, target: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """Return the ranges of a view along the dimensions of its parameter, the outermost first."""
    offset = int(target.storage_offset()) - int(parameter.storage_offset())
    shape = (1,) * (parameter.dim() - target.dim()) + tuple(target.shape)
    ranges = []
    for stride, extent in sorted(zip(parameter.stride(), shape, strict=True), reverse=True):
        start, offset = divmod(offset, stride)
        ranges.append((start, start + extent))
    return tuple(ranges)
