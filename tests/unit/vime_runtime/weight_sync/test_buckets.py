from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import torch
from vime_runtime.weight_sync.buckets import ALIGNMENT, BucketExporter, view_entry
from vime_runtime.weight_sync.device_identity import machine_id
from vime_runtime.weight_sync.ipc import BufferReader
from vime_runtime.weight_sync.transport import BufferPlan

TENSORS = {
    "embedding": torch.randn(64, 16),
    "scale": torch.randn(3, dtype=torch.bfloat16),
    "weight": torch.randn(33, 7).to(torch.bfloat16),
    "transposed": torch.randn(8, 5).T,
}


def weights() -> Iterator[tuple[str, torch.Tensor]]:
    yield from TENSORS.items()


def read_pass(exporter: BucketExporter) -> tuple[list[int], dict[str, torch.Tensor]]:
    reader = BufferReader(torch.device("cpu"))
    payloads, read = [], {}
    while (message := exporter.next()) is not None:
        payloads.append(message.payload_bytes)
        buffer = reader.open(message.handles[machine_id()])
        for entry in message.tensors:
            rows = view_entry(buffer, entry)
            whole = read.setdefault(entry.name, torch.empty(entry.full_shape, dtype=rows.dtype))
            whole[entry.start : entry.start + len(rows)].copy_(rows)
    return payloads, read


@pytest.mark.parametrize("bucket_bytes", [1, 128, 500, 4096, 1_000_000])
def test_all_tensors_are_received_in_buckets_of_the_given_size(bucket_bytes: int) -> None:
    exporter = BucketExporter(weights, bucket_bytes)
    for _ in range(2):  # a pass can follow a pass
        payloads, read = read_pass(exporter)
        assert list(read) == list(TENSORS)
        for name, tensor in TENSORS.items():
            assert read[name].dtype == tensor.dtype
            assert torch.equal(read[name], tensor)
        row = max(tensor.nbytes // len(tensor) for tensor in TENSORS.values())
        assert max(payloads) <= max(bucket_bytes, row)
        assert sum(payloads) == sum(tensor.nbytes for tensor in TENSORS.values())


def test_a_pass_takes_the_memory_of_two_buckets() -> None:
    exporter = BucketExporter(weights, bucket_bytes=256)
    sizes = {}
    while (message := exporter.next()) is not None:
        handle = pickle.loads(message.handles[machine_id()])
        sizes[handle.inode] = handle.nbytes
        assert all(entry.offset % ALIGNMENT == 0 for entry in message.tensors)
    assert list(sizes.values()) == [256, 256]


def test_both_buffers_of_a_plan_are_allocated_before_the_first_pass() -> None:
    exporter = BucketExporter(weights, 4096, BufferPlan(device=False, cpu=False))
    exporter.set_plan(BufferPlan(device=False, cpu=True))
    assert [buffer.data.numel() for buffers in exporter._double_buffer for buffer in buffers] == [4096, 4096]


def test_a_bucket_is_unchanged_while_the_next_one_is_filled() -> None:
    exporter = BucketExporter(weights, bucket_bytes=256)
    reader = BufferReader(torch.device("cpu"))
    message = exporter.next()
    while message is not None:
        buffer = reader.open(message.handles[machine_id()])
        before = [view_entry(buffer, entry).clone() for entry in message.tensors]
        following = exporter.next()
        for entry, tensor in zip(message.tensors, before, strict=True):
            assert torch.equal(view_entry(buffer, entry), tensor), entry.name
        message = following


def test_a_pass_exports_the_current_weights() -> None:
    parameter = torch.nn.Parameter(torch.zeros(4))
    exporter = BucketExporter(lambda: iter([("p", parameter)]), 64)
    read_pass(exporter)
    parameter.data.fill_(7)
    _, read = read_pass(exporter)
    assert read["p"].tolist() == [7, 7, 7, 7]


def test_a_rank_without_readers_fills_nothing_and_has_the_same_entries() -> None:
    filled, unread = BucketExporter(weights, 500), BucketExporter(weights, 500, BufferPlan(False, False))
    while (message := filled.next()) is not None:
        silent = unread.next()
        assert silent is not None
        assert silent.handles == {}
        assert message.joined([silent]) == silent.joined([message]) == message
    assert unread.next() is None
