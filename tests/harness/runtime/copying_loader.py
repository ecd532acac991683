"""A fake of the direct loader, which imports vLLM and has its own tests."""

from __future__ import annotations

import torch


class CopyingLoader:
    """Copy tensors into the parameters of the same names."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._parameters = dict(model.named_parameters())

    def load(self, name: str, tensor: torch.Tensor, full: tuple[int, ...], start: int) -> None:
        """Copy the rows of a tensor from ``start`` on."""
        assert self._parameters[name].shape == full
        self._parameters[name].data[start : start + len(tensor)].copy_(tensor)

    def finish(self) -> None:
        """Accept every update."""
