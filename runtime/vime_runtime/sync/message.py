"""What the trainer tells the engine about a bucket. Imports no torch: the driver passes it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a bucket: Hugging Face name, torch dtype name ("bfloat16"), shape, and place in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class BucketMessage:
    """A filled bucket: the handle by which a peer finds the buffer, and the tensors in it."""

    handle: Any
    tensors: tuple[TensorEntry, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes of tensors in the bucket."""
        return sum(tensor.nbytes for tensor in self.tensors)
