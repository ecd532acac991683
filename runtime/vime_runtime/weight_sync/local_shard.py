"""What one rank has of a full tensor, where the ranks of a machine fill one buffer together."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch


@dataclass(frozen=True)
class Held:
    """The parts of one Hugging Face tensor that this rank writes; all ranks together write all of it.

    Attributes:
        shape, dtype: of the full tensor.
        parts: (dim, start, rows): ``rows`` belong at ``start`` along ``dim``.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: tuple[tuple[int, int, torch.Tensor], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the full tensor."""
        return prod(self.shape) * self.dtype.itemsize

    def write(self, target: torch.Tensor, first: int = 0) -> None:
        """Put this rank's parts where they belong in ``target``, the full tensor's rows from ``first`` on."""
        for dim, start, rows in self.parts:
            if dim == 0:
                begin, end = max(start, first), min(start + len(rows), first + len(target))
                if begin < end:
                    target[begin - first : end - first].copy_(rows[begin - start : end - start])
            else:
                target.narrow(dim, start, rows.shape[dim]).copy_(rows[first : first + len(target)])
