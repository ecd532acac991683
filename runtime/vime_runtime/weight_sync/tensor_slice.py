"""A part of a Hugging Face tensor in the memory of a trainer's shard or of an engine's parameter."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorSlice:
    """The part of a full tensor that a view holds.

    Attributes:
        name, shape: of the full tensor.
        dim, start: the part begins at ``start`` along ``dim`` and is as long as ``view``.
        view: [rows, ...], memory of a parameter.
    """

    name: str
    shape: Shape
    dim: int
    start: int
    view: Tensor

    def read(self, rows: Tensor, first: int = 0) -> None:
        """Copy into the view what belongs there of ``rows``, the full tensor's rows from ``first`` on."""
        own, others = self._common(rows, first)
        own.copy_(others)

    def write(self, rows: Tensor, first: int = 0) -> None:
        """Copy the view to its place in ``rows``, the full tensor's rows from ``first`` on."""
        own, others = self._common(rows, first)
        others.copy_(own)

    def _common(self, rows: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Return the elements that are in the view and in ``rows``, as a part of each."""
        if self.dim == 1:
            width = self.view.shape[1]
            return self.view[first : first + len(rows)], rows.narrow(1, self.start, width)
        begin = max(self.start, first)
        end = max(begin, min(self.start + len(self.view), first + len(rows)))
        return self.view[begin - self.start : end - self.start], rows[begin - first : end - first]
