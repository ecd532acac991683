"""A stream of weights in buckets of bounded size, through two buffers that are used in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod

import torch
import torch.distributed as dist

from vime_runtime.weight_sync.ipc import BUFFERS, CpuBuffer, DeviceBuffer
from vime_runtime.weight_sync.tensor_slice import Shape, TensorSlice
from vime_runtime.weight_sync.transport import BucketMessage, BufferPlan, TensorEntry

# Every tensor begins at a multiple of this, so that it can be viewed in its dtype and loads are aligned.
ALIGNMENT = 64
# For weights in CPU memory that no other rank has.
OWN_CPU_COPY = BufferPlan(device=False, cpu=True)


@dataclass(frozen=True)
class LocalShard:
    """The parts of one Hugging Face tensor that this rank writes; all ranks together write all of it.

    Attributes:
        shape, dtype: of the full tensor.
    """

    shape: Shape
    dtype: torch.dtype
    parts: tuple[TensorSlice, ...]

    @property
    def nbytes(self) -> int:
        """The bytes of the full tensor."""
        return prod(self.shape) * self.dtype.itemsize


class BucketExporter:
    """Copy the weights into buckets, one after the other.

    There are two buffers: a rank fills one while engines read the other. A bucket stays unchanged while the
    next one is filled, and may be overwritten by the one after that. The buffers are kept between passes,
    because mapping fresh pages takes longer than copying into them. A tensor that does not fit into a bucket
    is split into parts of as many rows as fit, at least one.

    Args:
        weights: starts a pass over all weights; each pass yields the same names in the same order.
        bucket_bytes: the bytes of tensors in a bucket, including alignment.
        plan: the copies that this rank makes of a bucket; without any it only takes part in the pass, and its
            messages have no handle.
        device: of the weights, for a copy in its memory.
        group: the ranks of a machine that fill one copy in CPU memory together, each with its LocalShards.
    """

    def __init__(
        self,
        weights: Callable[[], Iterator[tuple[str, torch.Tensor | LocalShard]]],
        bucket_bytes: int,
        plan: BufferPlan = OWN_CPU_COPY,
        device: torch.device | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self._weights = weights
        self._bucket_bytes = bucket_bytes
        self._device = device
        self._group = group
        self._current = 0
        self._pass: Iterator[BucketMessage] | None = None
        self._double_buffer = [self._buffers(plan) for _ in range(BUFFERS)]

    def set_plan(self, plan: BufferPlan) -> None:
        """Allocate the memory for copies of the weights, used from the next pass on."""
        self._double_buffer = [self._buffers(plan) for _ in range(BUFFERS)]
        for buffer in chain(*self._double_buffer):
            buffer.reserve(self._bucket_bytes)

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
        for name, weight in self._weights():
            shard = weight if isinstance(weight, LocalShard) else _whole(name, weight)
            dtype = str(shard.dtype).removeprefix("torch.")
            rows, *columns = shard.shape
            row_bytes = shard.nbytes // rows
            fitting = max(1, self._bucket_bytes // row_bytes)
            for start in range(0, rows, fitting):
                shape = min(fitting, rows - start), *columns
                nbytes = shape[0] * row_bytes
                if entries and end + nbytes > self._bucket_bytes:
                    yield self._message(entries)
                    entries, end = [], 0
                entry = TensorEntry(name, dtype, shape, end, nbytes, shard.shape, start)
                self._copy(shard, entry)
                entries.append(entry)
                end += -(-nbytes // ALIGNMENT) * ALIGNMENT
        if entries:
            yield self._message(entries)

    def _buffers(self, plan: BufferPlan) -> list[CpuBuffer | DeviceBuffer]:
        buffers: list[CpuBuffer | DeviceBuffer] = []
        if plan.device:
            assert self._device is not None  # only weights on a device are copied there
            buffers.append(DeviceBuffer(self._device))
        if plan.cpu:
            buffers.append(CpuBuffer(self._group))
        return buffers

    def _copy(self, shard: LocalShard, entry: TensorEntry) -> None:
        for buffer in self._double_buffer[self._current]:
            buffer.reserve(max(entry.nbytes, self._bucket_bytes))
            target = view_entry(buffer.data, entry)
            for part in shard.parts:
                part.write(target, entry.start)

    def _message(self, entries: list[TensorEntry]) -> BucketMessage:
        handles: dict[str, bytes] = {}
        for buffer in self._double_buffer[self._current]:
            handles |= buffer.handles()
        self._current = (self._current + 1) % BUFFERS
        return BucketMessage(handles, tuple(entries))


def view_entry(buffer: torch.Tensor, entry: TensorEntry) -> torch.Tensor:
    """Return a tensor of a bucket as a view of the buffer, uint8 [bytes]."""
    part = buffer[entry.offset : entry.offset + entry.nbytes]
    return part.view(getattr(torch, entry.dtype)).view(entry.shape)


def _whole(name: str, tensor: torch.Tensor) -> LocalShard:
    shape = tuple(tensor.shape)
    return LocalShard(shape, tensor.dtype, (TensorSlice(name, shape, 0, 0, tensor.detach()),))
