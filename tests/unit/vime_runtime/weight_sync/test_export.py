from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.distributed import FileStore
from vime_runtime.spec.model_families import FAMILIES
from vime_runtime.weight_sync.export import Rank, split


def read_all(directory: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    return tensors


def round_trip(
    rank: int, world_size: int, store: str, path: str, dtype: torch.dtype, *parallel_sizes: int
) -> dict[str, Any]:
    """Load a checkpoint into Megatron's model and export it again."""
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.weight_sync.export import WeightBridge

    groups = parallel.start("gloo", rank, world_size, FileStore(store, world_size), *parallel_sizes)
    try:
        source = HFCheckpoint(Path(path))
        built = model.build(source, dtype, torch.device("cpu"), groups)
        bridge = WeightBridge(source, groups)
        bridge.load(built)
        exported = {name: tensor.clone() for name, tensor in bridge.export(built)}
        megatron = {n: p.detach() for n, p in built.named_parameters()}
        local = dict(bridge.local_shards(built, first_replica=rank < groups.tensor.size()))
        return {"exported": exported, "megatron": megatron, "local": local}
    finally:
        parallel.stop()


def fill_together(rank: int, world_size: int, store: str, path: str) -> dict[str, torch.Tensor]:
    """Put a checkpoint's shards into one shared buffer; the first rank returns what a reader finds there."""
    from functools import partial

    import torch.distributed as dist
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.weight_sync.buckets import BucketExporter, view_entry
    from vime_runtime.weight_sync.device_identity import machine_id
    from vime_runtime.weight_sync.export import WeightBridge
    from vime_runtime.weight_sync.ipc import BufferReader

    groups = parallel.start("gloo", rank, world_size, FileStore(store, world_size), world_size)
    try:
        source = HFCheckpoint(Path(path))
        built = model.build(source, torch.float32, torch.device("cpu"), groups)
        bridge = WeightBridge(source, groups)
        bridge.load(built)
        exporter = BucketExporter(partial(bridge.local_shards, built), 10_000, group=groups.tensor)
        reader, read = BufferReader(torch.device("cpu")), {}
        while (message := exporter.next()) is not None:
            dist.barrier(groups.tensor)  # the loop asks for no bucket before all have given the last one
            if message.handles:
                buffer = reader.open(message.handles[machine_id()])
                for entry in message.tensors:
                    whole = read.setdefault(entry.name, torch.empty(entry.full_shape))
                    whole[entry.start : entry.start + entry.shape[0]].copy_(view_entry(buffer, entry))
            dist.barrier(groups.tensor)
        return read
    finally:
        parallel.stop()


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_ranks_fill_one_buffer_together(ranks, make_model, tensor_parallel):
    directory = make_model(tie_word_embeddings=False, vocab_size=65)
    original = read_all(directory)
    first, *others = ranks.run(fill_together, tensor_parallel, str(directory))
    assert all(read == {} for read in others)  # there is one buffer, and it is the first rank's
    assert first.keys() == original.keys()
    for name, tensor in original.items():
        assert torch.equal(first[name], tensor), name


@pytest.mark.parametrize("tensor_parallel", [1, 2])
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize(
    ("model", "dtype"),
    [
        ({"tie_word_embeddings": True, "shard": "100KB"}, torch.bfloat16),
        ({"tie_word_embeddings": False, "vocab_size": 65}, torch.float32),
    ],
    ids=["tied-bf16-many-files", "untied-padded-vocabulary"],
)
def test_round_trip_is_bitwise(ranks, make_model, tensor_parallel, family, model, dtype):
    directory = make_model(family, dtype=dtype, **model)
    results = ranks.run(round_trip, tensor_parallel, str(directory), dtype, tensor_parallel)
    assert_round_trip(results, read_all(directory), dtype)
    if tensor_parallel == 2 and "vocab_size" in model:
        padded = results[1]["megatron"]["embedding.word_embeddings.weight"]
        assert padded.shape[0] == 33
        assert not padded[-1].any()


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_round_trip_of_divided_experts_is_bitwise(ranks, make_model, tensor_parallel):
    directory = make_model("qwen3_moe", tie_word_embeddings=False)
    results = ranks.run(round_trip, 2, str(directory), torch.float32, tensor_parallel, 2)
    assert_round_trip(results, read_all(directory), torch.float32)
    layer = "decoder.layers.1.mlp.experts.local_experts."
    for rank, result in enumerate(results):
        assert sum(name.startswith(layer) for name in result["megatron"]) == 4 * 2  # four of eight, whole
        up = read_all(directory)[f"model.layers.1.mlp.experts.{4 * rank + 3}.up_proj.weight"]
        assert torch.equal(result["megatron"][f"{layer}3.linear_fc1.weight"][len(up) :], up)


def assert_round_trip(
    results: list[dict[str, Any]], original: dict[str, torch.Tensor], dtype: torch.dtype
) -> None:
    """Every rank exports all of the original, and what the ranks hold together is all of it, once."""
    for result in results:
        assert result["exported"].keys() == result["local"].keys() == original.keys()
        for name, tensor in original.items():
            assert result["exported"][name].dtype is dtype
            assert torch.equal(result["exported"][name], tensor), name
    for name, tensor in original.items():
        parts = [result["local"][name] for result in results]
        assert sum(part.view.numel() for shard in parts for part in shard.parts) == tensor.numel()
        filled = torch.full(parts[0].shape, float("nan"), dtype=parts[0].dtype)
        for part in (part for shard in parts for part in shard.parts):
            part.write(filled)
        assert torch.equal(filled, tensor), name


@pytest.mark.parametrize("size", [1, 2, 3, 6])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_pieces_of_all_ranks_cover_every_tensor_once(family, size):
    config = {
        "vocab_size": 65,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 1,
        "num_attention_heads": 18,
        "num_key_value_heads": 6,
        "head_dim": 64,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
    }
    shape = FAMILIES[family].shape(config, "config.json")
    tensors = FAMILIES[family].tensors(shape)
    for mapping in FAMILIES[family].parameters(shape):
        taken = {name: torch.zeros(tensors[name]) for name in mapping.hf}
        for rank in range(size):
            for name, dim, start, stop in split(mapping, tensors, shape, Rank(rank, size)):
                taken[name].narrow(dim, start, stop - start).add_(1)
        copies = size if mapping.layout == "whole" else 1
        assert all((counts == copies).all() for counts in taken.values()), mapping.megatron
