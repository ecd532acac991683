"""Weights through buckets into another process, against one-thread memcpy of the same bytes, interleaved.

This is the transport alone: tensors are packed into the shared buffer, and a reader in another
process copies every tensor out of its view, as a weight loader does. What Megatron's gather and
vLLM's loaders cost on top shows in the ``sync/seconds`` of a run.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection

import torch
from vime_runtime.sync.buckets import BucketExporter, view
from vime_runtime.sync.ipc import HostPeer

# The shape of Qwen3-0.6B: hidden 1024, MLP 3072, 28 layers, vocabulary 151,936.
LAYER = [(2048, 1024), (1024, 1024), (1024, 1024), (1024, 2048), (3072, 1024), (3072, 1024), (1024, 3072)]
SHAPES = [(151_936, 1024)] + LAYER * 28
BUCKET_BYTES = 256 * 1024**2
ROUNDS = 5


def main() -> None:
    """Print GB/s of both and the ratio of their medians."""
    torch.set_num_threads(1)
    weights = {f"weight.{i}": torch.zeros(shape, dtype=torch.bfloat16) for i, shape in enumerate(SHAPES)}
    copies = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    size = sum(weight.nbytes for weight in weights.values())
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    reader = multiprocessing.get_context("spawn").Process(target=read, args=(theirs,), daemon=True)
    reader.start()
    exporter = BucketExporter(lambda: iter(weights.items()), BUCKET_BYTES)
    seconds: dict[str, list[float]] = {"buckets": [], "memcpy": []}
    for _ in range(1 + ROUNDS):  # the first round touches every page for the first time
        seconds["buckets"].append(timed(send(exporter, ours)))
        seconds["memcpy"].append(timed(copy(weights, copies)))
    ours.send(None)
    reader.join()
    report(size, seconds)


def send(exporter: BucketExporter, connection: Connection) -> Iterator[None]:
    """Carry every weight once; the reader answers when it has copied a bucket."""
    while (bucket := exporter.next()) is not None:
        connection.send(bucket)
        yield connection.recv()


def copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> Iterator[None]:
    """Copy every weight once, in this process."""
    for name, tensor in source.items():
        yield target[name].copy_(tensor)


def read(connection: Connection) -> None:
    """Copy each bucket's tensors out of the shared buffer until told to stop."""
    torch.set_num_threads(1)
    peer = HostPeer()
    mine: dict[str, torch.Tensor] = {}
    while (bucket := connection.recv()) is not None:
        buffer = peer.open(bucket.handles)
        for entry in bucket.tensors:
            tensor = view(buffer, entry)
            if entry.name not in mine:
                mine[entry.name] = torch.empty_like(tensor)
            mine[entry.name].copy_(tensor)
        connection.send(None)


def timed(work: Iterator[None]) -> float:
    """Run work to its end and return the seconds it took."""
    start = time.perf_counter()
    for _ in work:
        pass
    return time.perf_counter() - start


def report(size: int, seconds: dict[str, list[float]]) -> None:
    """One line each, and the ratio."""
    speed = {name: size / statistics.median(rounds[1:]) / 1e9 for name, rounds in seconds.items()}
    print(f"weights: {size / 1e9:.2f} GB in bf16, buckets of {BUCKET_BYTES / 1e6:.0f} MB, {ROUNDS} rounds")
    for name, value in speed.items():
        print(f"{name:8} {value:6.2f} GB/s")
    print(f"buckets / memcpy: {speed['buckets'] / speed['memcpy']:.2f}")
