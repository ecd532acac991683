"""Weight sync from Megatron's shards into vLLM's packed parameters, compared with memcpy by one thread.

The whole path of a run with TP=2 for trainer and engine: the slices of each shard, the buckets, the shared
buffer, and the direct loader; without Ray, which passes one small message a bucket, and without an optimizer,
which would need 10 GB more at this size. One sync and one memcpy of the same bytes alternate.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vimectl.recipes.environment import environment
from vimectl.recipes.resolve import resolve
from vimectl.runs.descendants import SharedMemoryWatch
from vimectl.util.host import Host

# Qwen3-0.6B.
SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
RANKS = 2
BUCKET_BYTES = 64 * 1024**2
ROUNDS = 5


def main() -> None:
    """Print GB/s of both, the ratio of their medians, and the memory that buckets take."""
    with tempfile.TemporaryDirectory(prefix="vime-b-") as folder:
        model = Path(folder)
        with process(write_checkpoint, "train", str(model)) as writer:
            writer.recv()
        store = f"{folder}/ranks"
        shm = SharedMemoryWatch()  # vLLM's workers do not remove all of theirs
        with (
            process(trainer_rank, "train", str(model), 0, store) as first,
            process(trainer_rank, "train", str(model), 1, store) as second,
            process(engine, "rollout", str(model)) as rollout,
            process(copy, "train") as memcpy,
        ):
            size, *_ = (side.recv() for side in (first, second, rollout))
            shm.update(all_files=True)
            ask(memcpy, size)
            seconds: dict[str, list[float]] = {"sync": [], "memcpy": []}
            for _ in range(1 + ROUNDS):  # the first round touches every page for the first time
                seconds["sync"].append(sync([first, second], rollout))
                seconds["memcpy"].append(ask(memcpy, size))
            extra = max(ask(rank, "peak") for rank in (first, second))  # both fill the same buckets
        shm.remove_unused()
    report(size, seconds, extra)


def sync(ranks: list[Connection], rollout: Connection) -> float:
    """Copy every weight once, as ``train_loop.sync_weights`` does; return the seconds it took."""
    began = time.perf_counter()
    ask(rollout, ("begin_update",))
    for rank in ranks:
        rank.send("next")
    while True:
        message, *others = [rank.recv() for rank in ranks]
        if message is None:
            break
        for rank in ranks:
            rank.send("next")  # they fill a bucket while the engine reads another
        ask(rollout, ("update", message.joined(others)))
    ask(rollout, ("end_update",))
    return time.perf_counter() - began


def report(size: int, seconds: dict[str, list[float]], extra: int) -> None:
    """Print the speed of both, their ratio, and the memory of the buckets."""
    speed = {name: size / statistics.median(rounds[1:]) / 1e9 for name, rounds in seconds.items()}
    print(f"{size / 1e9:.2f} GB in bf16, buckets of {BUCKET_BYTES / 1e6:.0f} MB, {ROUNDS} rounds")
    for name, value in speed.items():
        print(f"  {name:8} {value:6.2f} GB/s")
    print(f"  sync / memcpy: {speed['sync'] / speed['memcpy']:.2f}")
    print(f"  memory taken by buckets: {extra / 1e6:.0f} MB, {extra / size:.0%} of the weights", flush=True)


def ask(peer: Connection, question: Any) -> Any:
    """Send and wait for the answer."""
    peer.send(question)
    return peer.recv()


@contextmanager
def process(target: Any, role: str, *arguments: Any) -> Iterator[Connection]:
    """Run ``target(connection, *arguments)`` in a new process with the environment of a role."""
    ours, theirs = get_context("spawn").Pipe()
    before = dict(os.environ)
    settings = environment(resolve("qwen3-tiny-tp2").recipe, role, Host(), Path(tempfile.gettempdir()))
    os.environ.update({name: setting.value for name, setting in settings.items()})
    # Not a daemon: the engine starts child processes.
    child = get_context("spawn").Process(target=target, args=(theirs, *arguments))
    try:
        child.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    theirs.close()
    try:
        yield ours
    except EOFError:
        sys.exit(f"{target.__name__} ended early")
    finally:
        ours.close()
        child.join()


def write_checkpoint(connection: Connection, folder: str) -> None:
    """Write the checkpoint with random weights."""
    import torch

    from benchmarks.checkpoint import write_model

    write_model(Path(folder), torch.bfloat16, **SHAPE)
    connection.send(True)


def trainer_rank(connection: Connection, folder: str, index: int, store: str) -> None:
    """Export the shard of a trainer rank without an optimizer."""
    import torch
    from torch.distributed import FileStore
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.weight_sync.buckets import BucketExporter
    from vime_runtime.weight_sync.export import WeightBridge

    source = HFCheckpoint(Path(folder))
    ranks = parallel.start("gloo", index, RANKS, FileStore(store, RANKS), RANKS)
    bridge = WeightBridge(source, ranks)
    shard = model.build(source, torch.bfloat16, torch.device("cpu"), ranks)
    bridge.load(shard)
    exporter = BucketExporter(partial(bridge.local_shards, shard), BUCKET_BYTES, group=ranks.tensor)
    connection.send(
        sum(2 * torch.Size(shape).numel() for shape in source.family.tensors(source.shape).values())
    )
    peak = 0
    for question in questions(connection):
        if question == "peak":
            connection.send(peak)
            continue
        message = exporter.next()
        peak = max(peak, _shared_bytes())
        connection.send(message)
    parallel.stop()


def engine(connection: Connection, folder: str) -> None:
    """Run a vLLM engine with two workers."""
    from vime_runtime.rollout.engine import Engine
    from vime_runtime.spec.process_roles import ROLES
    from vime_runtime.spec.run_config import RunConfig

    recipe = resolve("qwen3-tiny-tp2", None, [f"model.path={folder}"]).recipe
    roles = {role: {} for role in ROLES}
    config = RunConfig(
        recipe=recipe,
        mode="test",
        steps=1,
        settings_sha256="",
        run_dir=folder,
        scratch_dir=folder,
        environment=roles,
        required=roles,
    )
    vllm_engine = Engine(config)
    connection.send(True)
    for method, *arguments in questions(connection):
        getattr(vllm_engine, method)(*arguments)
        connection.send(True)
    vllm_engine.close()


def copy(connection: Connection) -> None:
    """Copy as many bytes as the weights have with one thread; answer with the seconds."""
    import torch

    torch.set_num_threads(1)
    source = target = torch.empty(0, dtype=torch.uint8)
    for size in questions(connection):
        if source.numel() != size:
            source, target = (torch.ones(size, dtype=torch.uint8) for _ in range(2))
        began = time.perf_counter()
        target.copy_(source)
        connection.send(time.perf_counter() - began)


def questions(connection: Connection) -> Iterator[Any]:
    """Yield what the parent process sends, until it hangs up."""
    while True:
        try:
            yield connection.recv()
        except EOFError:
            return


def _shared_bytes() -> int:
    """Return the shared memory of this process, which has only the buckets."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssShmem:"))
