"""The description of a bucket, from trainer to engine. Imports no torch: the driver passes it on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a bucket, or some of its rows if it is larger than a bucket.

    Attributes:
        name: the Hugging Face name.
        dtype: torch's name of it, "bfloat16".
        shape: of the rows in the bucket.
        offset: of these rows in the bucket, in bytes.
        nbytes: of these rows.
        full_shape: of the whole tensor.
        start: the first of these rows in the whole tensor; the parts of a tensor come in order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    full_shape: tuple[int, ...]
    start: int = 0


@dataclass(frozen=True)
class BucketMessage:
    """The tensors in a filled bucket, and the handles by which readers open its copies.

    ``handles`` has one handle for each memory with a copy of the bucket: by ``device_uuid`` for the memory of
    a device, by ``machine_id`` for CPU memory (``device_identity``).
    """

    handles: dict[str, Any]
    tensors: tuple[TensorEntry, ...]

    @property
    def payload_bytes(self) -> int:
        """The bytes of tensors in the bucket."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def joined(self, others: Iterable[BucketMessage]) -> BucketMessage:
        """Return this message with the handles of other ranks' copies of the same bucket added."""
        handles = dict(self.handles)
        for other in others:
            if other.tensors != self.tensors:
                raise RuntimeError("the ranks export different buckets")
            handles = other.handles | handles
        return BucketMessage(handles, self.tensors)
