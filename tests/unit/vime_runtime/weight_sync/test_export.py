from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from vime_runtime.spec.model_families import FAMILIES
from vime_runtime.weight_sync.export import LAYOUTS, Rank


def read_all(directory: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    return tensors


def round_trip(
    rank: int,
    world_size: int,
    master: str,
    path: str,
    dtype: torch.dtype,
    tensor_parallel: int,
    expert_parallel: int = 1,
) -> dict[str, Any]:
    """Load a checkpoint into Megatron's model and export it again."""
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.weight_sync.export import WeightBridge

    groups = parallel.start("gloo", rank, world_size, master, tensor_parallel, expert_parallel)
    try:
        source = HFCheckpoint(Path(path))
        built = model.build(
            source.family,
            source.shape,
            dtype,
            torch.device("cpu"),
            tensor_parallel,
            expert_parallel=expert_parallel,
            replicas=groups.replicas,
        )
        bridge = WeightBridge(source.family, source.shape, groups.tensor, groups.expert)
        bridge.load(built, source)
        exported = {name: tensor.clone() for name, tensor in bridge.export(built)}
        megatron = {n: p.detach() for n, p in built.named_parameters()}
        local = dict(bridge.local_shards(built, first_replica=rank < tensor_parallel))
        return {"exported": exported, "megatron": megatron, "local": local}
    finally:
        parallel.stop()


def fill_together(rank: int, world_size: int, master: str, path: str) -> dict[str, torch.Tensor]:
    """Put a checkpoint's shards into one shared buffer; the first rank returns what a reader finds there."""
    import torch.distributed as dist
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
    from vime_runtime.weight_sync.buckets import BucketExporter, view_entry
    from vime_runtime.weight_sync.export import WeightBridge
    from vime_runtime.weight_sync.ipc import CpuBufferReader, SharedCpuBuffer

    groups = parallel.start("gloo", rank, world_size, master, world_size)
    try:
        source = HFCheckpoint(Path(path))
        built = model.build(source.family, source.shape, torch.float32, torch.device("cpu"), world_size)
        bridge = WeightBridge(source.family, source.shape, groups.tensor, groups.expert)
        bridge.load(built, source)
        exporter = BucketExporter(
            lambda: bridge.local_shards(built), 10_000, shared=lambda: SharedCpuBuffer(groups.tensor)
        )
        reader, read = CpuBufferReader(), {}
        while (message := exporter.next()) is not None:
            dist.barrier(groups.tensor)  # the loop asks for no bucket before all have given the last one
            if message.handles:
                buffer = reader.open(message.handles)
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
        assert sum(rows.numel() for shard in parts for _, _, rows in shard.parts) == tensor.numel()
        filled = torch.full(parts[0].shape, float("nan"), dtype=parts[0].dtype)
        for shard in parts:
            shard.write(filled)
        assert torch.equal(filled, tensor), name


def test_megatron_layout(ranks, make_model):
    directory = make_model(tie_word_embeddings=False, vocab_size=65)
    hf = read_all(directory)
    attention, mlp = "model.layers.1.self_attn.", "model.layers.1.mlp."
    # Two groups of two queries, head size 32: rank r of 2 holds group r, its queries, key and value together.
    for rank, result in enumerate(ranks.run(round_trip, 2, str(directory), torch.float32, 2)):
        group, half = slice(rank * 32, rank * 32 + 32), slice(rank * 48, rank * 48 + 48)
        expected = {
            "embedding.word_embeddings.weight": torch.cat(
                [hf["model.embed_tokens.weight"], torch.zeros(1, 64)]
            )[rank * 33 : rank * 33 + 33],
            "decoder.layers.1.self_attention.linear_qkv.weight": torch.cat(
                [
                    hf[attention + "q_proj.weight"][rank * 64 : rank * 64 + 64],
                    hf[attention + "k_proj.weight"][group],
                    hf[attention + "v_proj.weight"][group],
                ]
            ),
            "decoder.layers.1.mlp.linear_fc1.weight": torch.cat(
                [hf[mlp + "gate_proj.weight"][half], hf[mlp + "up_proj.weight"][half]]
            ),
            "decoder.layers.1.mlp.linear_fc2.weight": hf[mlp + "down_proj.weight"][:, half],
            "decoder.final_layernorm.weight": hf["model.norm.weight"],
        }
        for name, tensor in expected.items():
            assert torch.equal(result["megatron"][name], tensor), name


def test_megatron_layout_of_the_biases(ranks, make_model):
    directory = make_model("qwen2", head_dim=32)
    hf = read_all(directory)
    attention = "model.layers.1.self_attn."
    for rank, result in enumerate(ranks.run(round_trip, 2, str(directory), torch.float32, 2)):
        expected = [
            hf[attention + "q_proj.bias"][rank * 64 : rank * 64 + 64],
            hf[attention + "k_proj.bias"][rank * 32 : rank * 32 + 32],
            hf[attention + "v_proj.bias"][rank * 32 : rank * 32 + 32],
        ]
        name = "decoder.layers.1.self_attention.linear_qkv.bias"
        assert torch.equal(result["megatron"][name], torch.cat(expected))


@pytest.mark.parametrize(("extent", "size"), [(64, 2), (65, 2), (7, 4), (3, 1)])
def test_shares_cover_the_extent_once(extent, size):
    shares = [Rank(index, size).share(extent) for index in range(size)]
    assert [i for start, stop in shares for i in range(start, stop)] == list(range(extent))


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
    for mapping in FAMILIES[family].parameters(shape):
        tensors = {name: FAMILIES[family].tensors(shape)[name] for name in mapping.hf}
        taken = {name: torch.zeros(full) for name, full in tensors.items()}
        for rank in range(size):
            for piece in LAYOUTS[mapping.layout](tensors, shape, Rank(rank, size)):
                taken[piece.name].narrow(piece.dim, piece.start, piece.stop - piece.start).add_(1)
        copies = size if mapping.layout == "whole" else 1
        assert all((counts == copies).all() for counts in taken.values()), mapping.megatron
