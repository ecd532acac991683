from __future__ import annotations

from typing import Any

import pytest
from vime_runtime.spec import metrics
from vime_runtime.spec.device_memory import (
    MARGIN,
    ParameterCount,
    device_memory,
    held_memory,
    loss_memory,
    sequence_bytes,
)
from vime_runtime.spec.model_families import family_of
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.recipe import Recipe

from harness.doctor.sparse_model import QWEN3_4B
from vimectl.recipes.resolve import resolve

QWEN3_30B_A3B = QWEN3_4B | {
    "model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048, "num_key_value_heads": 4,
    "intermediate_size": 6144, "tie_word_embeddings": False, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}  # fmt: skip
GIB = 1 << 30
DEVICE = 61 * GIB  # of an Ascend 910B1
MIB = 1 << 20
HCCL = (2 * 200 + 1) * MIB


def shape_of(config: dict[str, Any]) -> ModelShape:
    return family_of(config, "").shape(config, "")


def recipe_of(name: str, *assignments: str) -> Recipe:
    return resolve(name, assignments=list(assignments)).recipe


DENSE, MOE = shape_of(QWEN3_4B), shape_of(QWEN3_30B_A3B)


def test_qwen3_4b_matches_a_manual_calculation() -> None:
    recipe = recipe_of("qwen3-4b-tp2")
    count = ParameterCount.of(recipe, DENSE)
    assert (count.total, count.experts, count.per_rank) == (4_022_468_096, 0, 2_011_234_048)
    found = device_memory(recipe, DENSE, DEVICE)
    always = {"trainer: buckets": 2 * 2**29, "trainer: HCCL": 2 * HCCL, "engine: HCCL": HCCL}
    # bf16 weights, and one of eight ranks' share of master weights and two moments; fp32 gradients
    region = count.per_rank * 2 + count.total // 8 * 12
    trained = {"trainer: region": region, "trainer: gradients": count.per_rank * 4}
    # the inputs of 36 layers; one layer computed again and its gradient, and that of half the embedding
    layer = 4 * 2560 + (4 * 4096 + 4 * 1024 + 2 * 1024 * 3072 / 2048 + 3 * 9728) // 2
    backward = 2 * 8192 * layer * 2 + 75_968 * 2560 * 2
    step = {"trainer: activations": 36 * 8192 * 2560 * 2, "trainer: loss": backward}
    weights = {"engine: weights": count.total}  # two bytes, on two ranks
    rest = int(0.6 * DEVICE) - count.total
    assert found == {
        metrics.ROLLOUT: always | weights | {"engine: KV cache and activations": rest},
        metrics.TRAIN: always | trained | step,
        # the embedding, and the shards that it is gathered from, in two bytes
        metrics.SYNC: always | trained | {"trainer: gathered": 2 * 2 * 151_936 * 2560} | weights,
    }


def test_qwen3_4b_fits_a_device_of_61_gib_with_the_margin() -> None:
    found = device_memory(recipe_of("qwen3-4b-tp2"), DENSE, DEVICE)
    assert max(sum(holders.values()) for holders in found.values()) < DEVICE * (1 - MARGIN)


def test_whole_experts_are_on_one_rank_and_others_are_sharded() -> None:
    count = ParameterCount.of(recipe_of("qwen3-30b-a3b-npu"), MOE)
    assert (count.total, count.experts) == (30_532_122_624, 48 * 128 * 3 * 2048 * 768)
    assert count.per_rank == (count.total - count.experts) // 4 + count.experts // 16
    sharded = ParameterCount.of(recipe_of("qwen3-30b-a3b-npu", "train.expert_parallel=1"), MOE)
    assert sharded.per_rank == count.total // 4


def test_keys_and_values_of_one_sequence() -> None:
    # keys and values, 36 layers, 4 heads of 128 a rank, two bytes, 3072 tokens
    assert sequence_bytes(recipe_of("qwen3-4b-tp2"), DENSE) == 2 * 36 * 4 * 128 * 2 * 3072
    recipe = recipe_of("qwen3-4b-tp2", "rollout.tensor_parallel=8")
    few = shape_of(QWEN3_4B | {"num_key_value_heads": 2})
    assert sequence_bytes(recipe, few) == sequence_bytes(recipe, DENSE)  # one head a rank

    # In bf16: the gradient of the logits of 883 tokens; that of the weight, the fp32 sum and a chunk's; the
    # states of all tokens and their gradient.
    # of all tokens, and their gradient.
    expected = 2 * 883 * 75_968 + (4 + 2) * 75_968 * 2560 + 2 * 2 * 8192 * 2560
    assert loss_memory("bfloat16", 8192, 75_968, 2560).nbytes == expected
    # In one chunk the scaled logits and their exp; states.
    assert loss_memory("float32", 100, 32_000, 64).nbytes == 8 * 100 * 32_000 + 4 * 100 * 64


def test_reference_and_fp32_take_memory() -> None:
    def region(*assignments: str) -> int:
        held = device_memory(recipe_of("qwen3-4b-tp2", *assignments), DENSE)
        return held[metrics.TRAIN]["trainer: region"]

    per_rank, optimized = 2_011_234_048, 4_022_468_096 // 8
    assert region("algorithm.kl_coefficient=0.1") == per_rank * 4 + optimized * 12
    assert region("model.dtype=float32") == per_rank * 4 + optimized * 8


def test_a_replicated_optimizer_has_all_of_the_state_on_every_rank() -> None:
    def region(*assignments: str) -> int:
        held = device_memory(recipe_of("qwen3-4b-tp2", *assignments), DENSE)
        return held[metrics.TRAIN]["trainer: region"]

    assert region("train.distributed_optimizer=false") == 2_011_234_048 * 14
    # One replica has nothing to share.
    assert region("cluster.devices_per_node=2") == 2_011_234_048 * 14
    experts = recipe_of("qwen3-30b-a3b-npu")
    # Whole experts on sixteen ranks, the rest on four: each part on all ranks that have the same one.
    assert ParameterCount.of(experts, MOE).optimized == -(-30_532_122_624 // 16)


def test_without_recomputation_every_layer_keeps_its_activations() -> None:
    kept = device_memory(recipe_of("qwen3-4b-tp2", "train.recompute=false"), DENSE)[metrics.TRAIN]
    # 4 x hidden, queries and keys four times, keys and values of all responses, 3 x the MLP; on two ranks
    each = 4 * 2560 + (4 * 4096 + 4 * 1024 + 2 * 1024 * 3072 / 2048 + 3 * 9728) // 2
    assert kept["trainer: activations"] == 36 * 8192 * each * 2


@pytest.mark.parametrize(
    ("name", "shape", "assignments", "trainer", "engine"),
    [
        ("qwen3-4b-tp2", DENSE, [], 2, 1),
        ("qwen3-4b-tp2", DENSE, ["train.tensor_parallel=1", "rollout.tensor_parallel=1"], 1, 0),
        ("qwen3-30b-a3b-npu", MOE, [], 3, 2),
        ("qwen3-30b-a3b-npu", MOE, ["rollout.expert_parallel=false"], 3, 1),
    ],
)
def test_every_communicator_has_two_buffers(
    name: str, shape: ModelShape, assignments: list[str], trainer: int, engine: int
) -> None:
    for assignment, nbytes in (([], HCCL), (["env.HCCL_BUFFSIZE=100"], 201 * MIB)):
        for held in device_memory(recipe_of(name, *assignments, *assignment), shape).values():
            assert (held["trainer: HCCL"], held["engine: HCCL"]) == (trainer * nbytes, engine * HCCL)


def test_every_number_says_how_it_was_computed() -> None:
    for holders in held_memory(recipe_of("qwen3-4b-tp2"), DENSE, DEVICE).values():
        for holder, held in holders.items():
            assert holder.partition(": ")[0] in ("trainer", "engine")
            assert held.how
            assert held.nbytes > 0
