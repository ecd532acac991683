from __future__ import annotations

from typing import Any

from vime_runtime.spec.model_families import family_of
from vime_runtime.spec.model_shape import ModelShape

from harness.doctor.sparse_model import QWEN3_4B
from vimectl.doctor.memory_estimate import estimate
from vimectl.recipes.resolve import resolve

QWEN3_30B_A3B = QWEN3_4B | {
    "model_type": "qwen3_moe", "num_hidden_layers": 48, "hidden_size": 2048, "num_key_value_heads": 4,
    "intermediate_size": 6144, "tie_word_embeddings": False, "num_experts": 128, "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}  # fmt: skip


def shape_of(config: dict[str, Any]) -> ModelShape:
    return family_of(config, "").shape(config, "")


def test_qwen3_4b_matches_a_manual_calculation() -> None:
    found = estimate(resolve("qwen3-4b-tp2").recipe, shape_of(QWEN3_4B))
    assert found.parameters == 4_022_468_096
    # bf16 weights, fp32 gradients, master weights and two moments, on two ranks
    assert found.trainer == found.parameters * (2 + 4 + 4 + 8) // 2
    assert found.engine == found.parameters * 2 // 2
    # keys and values, 36 layers, 4 heads of 128 a rank, two bytes, 3072 tokens
    assert found.sequence == 2 * 36 * 4 * 128 * 2 * 3072


def test_qwen3_30b_a3b_matches_a_manual_calculation() -> None:
    found = estimate(resolve("qwen3-30b-a3b-npu").recipe, shape_of(QWEN3_30B_A3B))
    assert found.parameters == 30_532_122_624
    assert found.experts == 48 * 128 * 3 * 2048 * 768
    # a sixteenth of the experts, a quarter of the rest
    dense = found.parameters - found.experts
    assert found.trainer == (dense // 4 + found.experts // 16) * (2 + 4 + 4 + 8)
    assert found.engine == found.parameters * 2 // 4
    assert found.sequence == 2 * 48 * 1 * 128 * 2 * 3072
    # while weights travel, all of it and a bucket are on one device of 61 GiB
    assert found.trainer + found.engine + 2**29 < 61 * 2**30


def test_without_expert_parallelism_experts_are_sharded_like_the_rest() -> None:
    recipe = resolve("qwen3-30b-a3b-npu", assignments=["train.expert_parallel=1"]).recipe
    found = estimate(recipe, shape_of(QWEN3_30B_A3B))
    assert found.trainer == found.parameters * 18 // 4


def test_reference_and_fp32_take_memory() -> None:
    bf16 = estimate(resolve("qwen3-4b-tp2").recipe, shape_of(QWEN3_4B))
    recipe = resolve("qwen3-4b-tp2", assignments=["algorithm.kl_coefficient=0.1"]).recipe
    kl = estimate(recipe, shape_of(QWEN3_4B))
    assert kl.trainer - bf16.trainer == bf16.parameters * 2 // 2
    fp32 = estimate(resolve("qwen3-4b-tp2", assignments=["model.dtype=float32"]).recipe, shape_of(QWEN3_4B))
    assert fp32.trainer == bf16.parameters * 16 // 2


def test_more_ranks_than_kv_heads_have_one_head_each() -> None:
    recipe = resolve("qwen3-4b-tp2", assignments=["rollout.tensor_parallel=8"]).recipe
    few = estimate(recipe, shape_of(QWEN3_4B | {"num_key_value_heads": 2}))
    one = estimate(recipe, shape_of(QWEN3_4B | {"num_key_value_heads": 8}))
    assert few.sequence == one.sequence
