"""Write Hugging Face tensors straight into the parameters of a vLLM model, without vLLM's loaders.

vLLM's layerwise reload needs memory for a second copy of a module, which a colocated NPU does not have. This
loader writes each tensor to its place as soon as it is received. Everything that does not fit is an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import torch

from vime_runtime.weight_sync.param_slices import (
    PADDING,
    find_slices,
    remote_expert_shapes,
    restore_expert_parameters,
)
from vime_runtime.weight_sync.tensor_slice import TensorSlice


class DirectLoader:
    """One update of one rank's model: ``load`` every tensor once, in any order, then ``finish``.

    Create a new one for each update: the parameters of a module may have been replaced since.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        """Find the slices of every parameter, and zero the padding of the vocabulary.

        Raises:
            ValueError: the slices do not have as many elements as the model's parameters, two begin at the
                same element, or the shape of a parameter does not follow from its module's sizes.
        """
        self._model = model
        # The slices that each tensor fills, with the name of their parameter.
        self._slices: dict[str, list[tuple[str, TensorSlice]]] = defaultdict(list)
        self._shapes = remote_expert_shapes(model)
        covered: Counter[str] = Counter()
        starts = set()
        for parameter, part in find_slices(model):
            covered[parameter] += part.view.numel()
            start = parameter, part.view.storage_offset()
            if part.view.numel():
                if start in starts:
                    raise ValueError(
                        f"parameter {parameter}: {part.name} would be written over another tensor"
                    )
                starts.add(start)
            if part.name == PADDING:
                part.view.zero_()
            else:
                self._slices[part.name].append((parameter, part))
                self._shapes[part.name] = part.shape
        for name, weight in model.named_parameters():
            if covered[name] != weight.numel():
                raise ValueError(
                    f"parameter {name}, {list(weight.shape)}: the weight update would write "
                    f"{covered[name]} of {weight.numel()} elements"
                )
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
            filled = ", ".join(name for name, _ in self._slices[name]) or "an expert of another rank"
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
        for _, part in self._slices[name]:
            part.read(tensor, start)
        if stop < expected[0]:
            self._missing[name] = stop
        else:
            del self._missing[name]

    def finish(self) -> None:
        """Restore the layout of experts.

        Raises:
            ValueError: tensors are missing; the update stays open for them.
        """
        if self._missing:
            raise ValueError(
                f"the weight update lacks {len(self._missing)} of {len(self._shapes)} tensors: "
                f"{', '.join(self._missing)}"
            )
        restore_expert_parameters(self._model)
