"""A stream of weights in buckets of bounded size, through two shared buffers filled in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from vime_runtime.weight_sync.device_ipc import DeviceBuffer
from vime_runtime.weight_sync.ipc import BUFFERS, HostBuffer, SharedHostBuffer
from vime_runtime.weight_sync.local_shard import Held
from vime_runtime.weight_sync.message import BucketMessage, TensorEntry
from vime_runtime.weight_sync.transport import Copies

# Every tensor begins at a multiple of this, so that it can be viewed in its dtype and loads are aligned.
ALIGNMENT = 64

Weights = Callable[[], Iterator[tuple[str, torch.Tensor | Held]]]
Buffer = HostBuffer | DeviceBuffer | SharedHostBuffer


class BucketExporter:
    """Hands out the weights bucket by bucket.

    A bucket stays as it is while the next one is asked for, and may be overwritten by the one after that:
    so a rank fills one while engines read the other, and two buckets are all the memory that a sync takes.
    They are kept from pass to pass: to have fresh pages mapped takes longer than to copy what goes into them.
    A tensor that does not fit into a bucket comes in parts, as many rows as fit, one row at least.

    Args:
        weights: starts a pass over all weights; each pass yields the same names in the same order.
        bucket_bytes: how many bytes of tensors, alignment included, a bucket may have.
        fill_host: whether weights that lie in host memory are put into a buffer. One copy a machine is
            enough: other ranks there go along with the pass, and their messages have no handle.
        shared: makes a buffer that the ranks of a machine fill together, each with what it holds of a
            weight; without it, a rank whose weights are ``Held`` only goes along.
    """

    def __init__(
        self,
        weights: Weights,
        bucket_bytes: int,
        fill_host: bool = True,
        shared: Callable[[], SharedHostBuffer] | None = None,
    ) -> None:
        self._weights = weights
        self._bucket_bytes = bucket_bytes
        self._fill_host = fill_host
        self._shared = shared
        self._copies = Copies(chip=True, host=False)
        self._turns: list[list[Buffer]] = []
        self._turn = 0
        self._pass: Iterator[BucketMessage] | None = None

    def serve(self, copies: Copies) -> None:
        """Put weights that lie on a device where they are read, from the next pass on."""
        self._copies = copies
        self._turns = []

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
        first = True
        for name, weight in self._weights():
            if first:
                self._prepare(weight)
                first = False
            for start, stop in self._parts(weight):
                entry = _entry(name, weight, start, stop, end)
                if entries and end + entry.nbytes > self._bucket_bytes:
                    yield self._message(entries)
                    entry = _entry(name, weight, start, stop, 0)
                    entries, end = [], 0
                self._put(weight, entry)
                entries.append(entry)
                end += -(-entry.nbytes // ALIGNMENT) * ALIGNMENT
        if entries:
            yield self._message(entries)

    def _prepare(self, weight: torch.Tensor | Held) -> None:
        """Make the buffers, the weights having said where they are, and so where their buffers have to be."""
        if not self._turns:
            self._turns = [self._buffers(weight) for _ in range(BUFFERS)]
        for buffer in self._turns[0]:
            if isinstance(buffer, DeviceBuffer):
                buffer.wait_for_producers()

    def _buffers(self, weight: torch.Tensor | Held) -> list[Buffer]:
        if self._shared is not None:
            return [self._shared()]
        if isinstance(weight, Held):
            return []
        if weight.is_cpu:
            return [HostBuffer()] if self._fill_host else []
        on_chip: list[Buffer] = [DeviceBuffer(weight.device)] if self._copies.chip else []
        return [*on_chip, *([HostBuffer()] if self._copies.host else [])]

    def _parts(self, weight: torch.Tensor | Held) -> Iterator[tuple[int, int]]:
        """The rows of each part of a weight, [start, stop)."""
        rows = weight.shape[0] if weight.shape else 1
        each = rows
        if weight.nbytes > self._bucket_bytes:
            each = max(1, self._bucket_bytes // (weight.nbytes // rows))
        for start in range(0, rows, each or 1):
            yield start, min(start + each, rows)
        if not rows:
            yield 0, 0

    def _put(self, weight: torch.Tensor | Held, entry: TensorEntry) -> None:
        for buffer in self._turns[self._turn]:
            buffer.reserve(max(entry.nbytes, self._bucket_bytes))
            target = view(buffer.data, entry)
            if isinstance(weight, Held):
                weight.write(target, entry.start)
            else:
                rows = weight.detach()
                part = entry.shape != entry.full
                target.copy_(rows[entry.start : entry.start + entry.shape[0]] if part else rows)

    def _message(self, entries: list[TensorEntry]) -> BucketMessage:
        handles = [buffer.handles() for buffer in self._turns[self._turn]]
        self._turn = (self._turn + 1) % BUFFERS
        return BucketMessage({key: one for each in handles for key, one in each.items()}, tuple(entries))


def view(buffer: torch.Tensor, entry: TensorEntry) -> torch.Tensor:
    """A tensor of a bucket in the buffer's own bytes (uint8, one dimension); nothing is copied."""
    part = buffer[entry.offset : entry.offset + entry.nbytes]
    return part.view(getattr(torch, entry.dtype)).view(entry.shape)


def _entry(name: str, weight: torch.Tensor | Held, start: int, stop: int, offset: int) -> TensorEntry:
    full = tuple(weight.shape)
    shape = (stop - start, *full[1:]) if full else ()
    dtype = str(weight.dtype).removeprefix("torch.")
    nbytes = weight.nbytes // full[0] * (stop - start) if full and full[0] else weight.nbytes
    return TensorEntry(name, dtype, shape, offset, nbytes, full, start)
