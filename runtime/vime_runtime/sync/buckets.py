"""A stream of weights in buckets of bounded size, through one shared buffer filled again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from vime_runtime.sync.device_ipc import DeviceBuffer
from vime_runtime.sync.held import Held
from vime_runtime.sync.ipc import HostBuffer, SharedHostBuffer
from vime_runtime.sync.message import BucketMessage, TensorEntry

# Every tensor begins at a multiple of this, so that it can be viewed in its dtype and loads are aligned.
ALIGNMENT = 64

Weights = Callable[[], Iterator[tuple[str, torch.Tensor | Held]]]


class BucketExporter:
    """Hands out the weights bucket by bucket.

    A bucket may be overwritten as soon as ``next`` is called again. The buffer takes
    ``max(bucket_bytes, largest tensor)``: a tensor larger than a bucket gets one of its own, since vLLM's
    weight loaders take whole tensors.

    Args:
        weights: starts a pass over all weights; each pass yields the same names in the same order.
        bucket_bytes: how many bytes of tensors, alignment included, a bucket of several tensors may have.
        fill_host: whether weights that lie in host memory are put into a buffer. One copy a machine is
            enough: other ranks there go along with the pass, and their messages have no handle.
        shared: the buffer that the ranks of a machine fill together, each with what it holds of a weight;
            without one, a rank whose weights are ``Held`` only goes along.
    """

    def __init__(
        self,
        weights: Weights,
        bucket_bytes: int,
        fill_host: bool = True,
        shared: SharedHostBuffer | None = None,
    ) -> None:
        self._weights = weights
        self._bucket_bytes = bucket_bytes
        self._fill_host = fill_host
        self._buffer: HostBuffer | DeviceBuffer | SharedHostBuffer | None = shared
        self._pass: Iterator[BucketMessage] | None = None

    def next(self) -> BucketMessage | None:
        """Fill the next bucket; None at the end of the pass, after which a new one can begin."""
        if self._pass is None:
            self._pass = self._fill()
        message = next(self._pass, None)
        if message is None:
            self._pass = None
        return message

    def _fill(self) -> Iterator[BucketMessage]:
        entries: list[TensorEntry] = []
        end = 0
        for name, tensor in self._weights():
            if entries and end + tensor.nbytes > self._bucket_bytes:
                yield self._message(entries)
                entries, end = [], 0
            entries.append(self._put(name, tensor, end))
            end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        if entries:
            yield self._message(entries)
            if self._buffer is not None:
                self._buffer.release()

    def _put(self, name: str, weight: torch.Tensor | Held, offset: int) -> TensorEntry:
        dtype = str(weight.dtype).removeprefix("torch.")
        entry = TensorEntry(name, dtype, tuple(weight.shape), offset, weight.nbytes)
        if self._buffer is None:
            self._buffer = self._own_buffer(weight)
        if self._buffer is not None:
            self._buffer.reserve(max(weight.nbytes, self._bucket_bytes))
            target = view(self._buffer.data, entry)
            weight.write(target) if isinstance(weight, Held) else target.copy_(weight.detach())
        return entry

    def _own_buffer(self, weight: torch.Tensor | Held) -> HostBuffer | DeviceBuffer | None:
        """The weights say where they are, and so where their buffer has to be."""
        if isinstance(weight, Held):
            return None
        if not weight.is_cpu:
            return DeviceBuffer(weight.device)
        return HostBuffer() if self._fill_host else None

    def _message(self, entries: list[TensorEntry]) -> BucketMessage:
        return BucketMessage(self._buffer.handles() if self._buffer else {}, tuple(entries))


def view(buffer: torch.Tensor, entry: TensorEntry) -> torch.Tensor:
    """A tensor of a bucket in the buffer's own bytes (uint8, one dimension); nothing is copied."""
    part = buffer[entry.offset : entry.offset + entry.nbytes]
    return part.view(getattr(torch, entry.dtype)).view(entry.shape)
