"""Hugging Face tensors written straight into the parameters of a vLLM model, without vLLM's loaders.

vLLM's layerwise reload needs memory for a second copy of a module, which a colocated NPU has not. This
writes each tensor where it belongs the moment it comes. Whatever does not fit is an error that says so:
nothing is skipped, cut or guessed.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

import torch

from vime_runtime.weight_sync.param_slices import Place, elsewhere, places, restore_expert_parameters


class DirectLoader:
    """One update of one rank's model: ``load`` every tensor once, in any order, then ``finish``.

    Make a new one for each update: a module may have taken new parameters since.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """Find out where everything goes.

        Raises:
            ValueError: the places do not cover the model's parameters exactly once, or a parameter has
                not the shape that its module's numbers make.
        """
        self._model = model
        self._padding: list[Place] = []
        self._places: dict[str, list[Place]] = defaultdict(list)
        self._shapes = elsewhere(model)
        for place in places(model):
            if place.tensor is None:
                self._padding.append(place)
            else:
                self._places[place.tensor].append(place)
                self._shapes[place.tensor] = place.shape
        _check_coverage(model, [*self._padding, *(p for some in self._places.values() for p in some)])
        # How many rows of those that are not complete have come.
        self._missing = dict.fromkeys(self._shapes, 0)

    def load(
        self, name: str, tensor: torch.Tensor, full: tuple[int, ...] | None = None, start: int = 0
    ) -> None:
        """Write this rank's part of a tensor, converted to the parameter's dtype.

        A tensor comes whole, or in parts that follow each other: the rows from ``start`` on of one that is
        ``full`` as a whole. It is not needed any more when the copies queued on the device are done.

        Raises:
            ValueError: the tensor is unknown, misshapen or comes twice; nothing is written then.
        """
        expected = self._shapes.get(name)
        if expected is None:
            raise ValueError(f"the weight update has a tensor {name}, which the model does not have")
        shape = tuple(tensor.shape) if full is None else tuple(full)
        if shape != expected:
            taken = ", ".join(place.parameter for place in self._places[name]) or "an expert of another rank"
            raise ValueError(
                f"tensor {name} of the weight update has the shape {list(shape)}; "
                f"{taken} is filled from {list(expected)}"
            )
        come = self._missing.get(name)
        if come is None or start < come:
            raise ValueError(f"tensor {name} comes twice in one weight update")
        stop = start + len(tensor)
        if start > come or tuple(tensor.shape[1:]) != expected[1:] or stop > expected[0]:
            raise ValueError(
                f"rows {start} to {stop} of tensor {name}, {list(tensor.shape)}, do not follow row {come} of "
                f"{list(expected)} in the weight update"
            )
        for place in self._places[name]:
            place.write(tensor, start)
        if stop < expected[0]:
            self._missing[name] = stop
        else:
            del self._missing[name]

    def finish(self) -> None:
        """Zero what no tensor fills, the padding of the vocabulary.

        Raises:
            ValueError: tensors have not come; the update stays open for them.
        """
        if self._missing:
            raise ValueError(
                f"the weight update lacks {len(self._missing)} of {len(self._shapes)} tensors: "
                f"{', '.join(self._missing)}"
            )
        for place in self._padding:
            place.write(None)
        restore_expert_parameters(self._model)


def _check_coverage(model: torch.nn.Module, found: list[Place]) -> None:
    """Check that every element of every parameter is in exactly one place.

    An element is known by its address, so that it does not matter how a parameter is cut.
    """
    cuts: dict[str, list[Place]] = defaultdict(list)
    for place in found:
        cuts[place.parameter].append(place)
    for name, parameter in model.named_parameters():
        covered = sum(place.target.numel() for place in cuts[name])
        if covered != parameter.numel() or _overlap(parameter, cuts[name]):
            raise ValueError(
                f"parameter {name}, {list(parameter.shape)}: the weight update would write {covered} of "
                f"{parameter.numel()} elements, or some of them twice"
            )


def _overlap(parameter: torch.Tensor, cuts: list[Place]) -> bool:
    """Whether two places have an element in common.

    The places of a parameter are boxes; two of them are apart when their ranges along some dimension are.
    Boxes here never have more in common than one row of experts, so that sorting finds neighbours.
    """
    boxes = sorted(_box(parameter, place.target) for place in cuts if place.target.numel())
    return any(
        all(a < d and c < b for (a, b), (c, d) in zip(one, other, strict=True))
        for one, other in pairwise(boxes)
    )


def _box(parameter: torch.Tensor, target: torch.Tensor) -> tuple[tuple[int, int], ...]:
    """The ranges of a view along the dimensions of the parameter that it is of, the outermost first."""
    offset = target.storage_offset() - parameter.storage_offset()
    shape = (1,) * (parameter.dim() - target.dim()) + tuple(target.shape)
    ranges = []
    for stride, extent in sorted(zip(parameter.stride(), shape, strict=True), reverse=True):
        start, offset = divmod(offset, stride)
        ranges.append((start, start + extent))
    return tuple(ranges)
