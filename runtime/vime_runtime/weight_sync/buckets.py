"""A stream of weights in buckets of bounded size, through two buffers that are used in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch

from vime_runtime.weight_sync.ipc import BUFFERS, CpuBuffer, DeviceBuffer, SharedCpuBuffer
from vime_runtime.weight_sync.transport import BucketMessage, BufferPlan, TensorEntry

# Every tensor begins at a multiple of this, so that it can be viewed in its dtype and loads are aligned.
ALIGNMENT = 64


@dataclass(frozen=True)
class LocalShard:
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
        """The bytes of the full tensor."""
        return prod(self.shape) * self.dtype.itemsize

    def write(self, target: torch.Tensor, first: int = 0) -> None:
        """Copy the parts to their places in ``target``, the full tensor's rows from ``first`` on."""
        for dim, start, rows in self.parts:
            if dim == 0:
                begin, end = max(start, first), min(start + len(rows), first + len(target))
                if begin < end:
                    target[begin - first : end - first].copy_(rows[begin - start : end - start])
            else:
                target.narrow(dim, start, rows.shape[dim]).copy_(rows[first : first + len(target)])


Weight = torch.Tensor | LocalShard
Buffer = CpuBuffer | DeviceBuffer | SharedCpuBuffer


class BucketExporter:
    """Copy the weights into buckets, one after the other.

    There are two buffers: a rank fills one while engines read the other. A bucket stays unchanged while the
    next one is filled, and may be overwritten by the one after that. The buffers are kept between passes,
    because mapping fresh pages takes longer than copying into them. A tensor that does not fit into a bucket
    is split into parts of as many rows as fit, at least one.

    Args:
        weights: starts a pass over all weights; each pass yields the same names in the same order.
        bucket_bytes: the bytes of tensors in a bucket, including alignment.
        fill_cpu: True to copy weights in CPU memory into a buffer. One copy per machine is enough: the other
            ranks there only take part in the pass, and their messages have no handle.
        shared: creates a buffer that the ranks of a machine fill together, each with its LocalShards. Without
            it, a rank whose weights are LocalShards only takes part in the pass.
    """

    def __init__(
        self,
        weights: Callable[[], Iterator[tuple[str, Weight]]],
        bucket_bytes: int,
        fill_cpu: bool = True,
        shared: Callable[[], SharedCpuBuffer] | None = None,
    ) -> None:
        self._weights = weights
        self._bucket_bytes = bucket_bytes
        self._fill_cpu = fill_cpu
        self._shared = shared
        self._plan = BufferPlan(device=True, cpu=False)
        self._double_buffer: list[list[Buffer]] = []
        self._current = 0
        self._pass: Iterator[BucketMessage] | None = None

    def set_plan(self, plan: BufferPlan) -> None:
        """Choose the memory for weights on a device, from the next pass on."""
        self._plan = plan
        self._double_buffer = []

    def next(self) -> BucketMessage | None:
        """Fill the next bucket and return it; None at the end of a pass, after which a new pass begins."""
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
                self._prepare_buffers(weight)
                first = False
            for start, stop in self._parts(weight):
                entry = _entry(name, weight, start, stop, end)
                if entries and end + entry.nbytes > self._bucket_bytes:
                    yield self._message(entries)
                    entry = _entry(name, weight, start, stop, 0)
                    entries, end = [], 0
                self._copy(weight, entry)
                entries.append(entry)
                end += -(-entry.nbytes // ALIGNMENT) * ALIGNMENT
        if entries:
            yield self._message(entries)

    def _prepare_buffers(self, weight: Weight) -> None:
        """Create the buffers once the first weight shows which memory the weights are in."""
        if not self._double_buffer:
            self._double_buffer = [self._buffers(weight) for _ in range(BUFFERS)]
        for buffer in self._double_buffer[0]:
            if isinstance(buffer, DeviceBuffer):
                buffer.wait_for_producers()

    def _buffers(self, weight: Weight) -> list[Buffer]:
        if self._shared is not None:
            return [self._shared()]
        if isinstance(weight, LocalShard):
            return []
        if weight.is_cpu:
            return [CpuBuffer()] if self._fill_cpu else []
        on_device: list[Buffer] = [DeviceBuffer(weight.device)] if self._plan.device else []
        return [*on_device, *([CpuBuffer()] if self._plan.cpu else [])]

    def _parts(self, weight: Weight) -> Iterator[tuple[int, int]]:
        """Yield the rows of each part of a weight, [start, stop)."""
        rows = weight.shape[0] if weight.shape else 1
        each = rows
        if weight.nbytes > self._bucket_bytes:
            each = max(1, self._bucket_bytes // (weight.nbytes // rows))
        for start in range(0, rows, each or 1):
            yield start, min(start + each, rows)
        if not rows:
            yield 0, 0

    def _copy(self, weight: Weight, entry: TensorEntry) -> None:
        for buffer in self._double_buffer[self._current]:
            buffer.reserve(max(entry.nbytes, self._bucket_bytes))
            target = view_entry(buffer.data, entry)
            if isinstance(weight, LocalShard):
                weight.write(target, entry.start)
            else:
                full = weight.detach()
                part = entry.shape != entry.full_shape
                target.copy_(full[entry.start : entry.start + entry.shape[0]] if part else full)

    def _message(self, entries: list[TensorEntry]) -> BucketMessage:
        handles = [buffer.handles() for buffer in self._double_buffer[self._current]]
        self._current = (self._current + 1) % BUFFERS
        return BucketMessage({key: one for each in handles for key, one in each.items()}, tuple(entries))


def view_entry(buffer: torch.Tensor, entry: TensorEntry) -> torch.Tensor:
    """Return a tensor of a bucket as a view of the buffer, uint8 [bytes]."""
    part = buffer[entry.offset : entry.offset + entry.nbytes]
    return part.view(getattr(torch, entry.dtype)).view(entry.shape)


def _entry(name: str, weight: Weight, start: int, stop: int, offset: int) -> TensorEntry:
    full = tuple(weight.shape)
    shape = (stop - start, *full[1:]) if full else ()
    dtype = str(weight.dtype).removeprefix("torch.")
    nbytes = weight.nbytes // full[0] * (stop - start) if full and full[0] else weight.nbytes
    return TensorEntry(name, dtype, shape, offset, nbytes, full, start)
