"""What the trainer tells the engine about a bucket. Imports no torch: the driver passes it on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorEntry:
    """One tensor in a bucket, or some of its rows where it is larger than a bucket.

    Attributes:
        name: the Hugging Face name.
        dtype: torch's name of it, "bfloat16".
        shape, offset, nbytes: of what is in the bucket, the place in bytes.
        full: the shape of the whole tensor.
        start: which row of it comes first; parts come in order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    full: tuple[int, ...]
    start: int = 0


@dataclass(frozen=True)
class BucketMessage:
    """A filled bucket: handles by which peers find the buffer, and the tensors in it.

    ``handles`` has one handle for each memory that holds a copy of the bucket: by the id of a physical
    device, or of a machine (``identity.machine_id``) where it is memory of the host.
    """

    handles: dict[str, Any]
    tensors: tuple[TensorEntry, ...]

    @property
    def payload_bytes(self) -> int:
        """Bytes of tensors in the bucket."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def joined(self, others: Iterable[BucketMessage]) -> BucketMessage:
        """This message with the handles of other ranks' copies of the same bucket added."""
        handles = dict(self.handles)
        for other in others:
            if other.tensors != self.tensors:
                raise RuntimeError("the ranks export different buckets")
            handles = other.handles | handles
        return BucketMessage(handles, self.tensors)
