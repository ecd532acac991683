from __future__ import annotations

from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.model_shape import (
    LLAMA3_ROPE,
    ModelShape,
    RotaryEmbedding,
    check_context,
    check_engine_split,
    check_trainer_split,
    read_rope,
)

from harness.run_config import make_recipe

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, **LLAMA3_ROPE}


def shape(**changes: Any) -> ModelShape:
    numbers: dict[str, Any] = {
        "model_type": "qwen3",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": 32,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "rope": RotaryEmbedding(1e4),
        "tie_word_embeddings": True,
    }
    return ModelShape(**numbers | changes)


EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 9}


@pytest.mark.parametrize(
    ("config", "rope"),
    [
        ({}, RotaryEmbedding(1e4)),
        ({"rope_theta": 5e5, "rope_scaling": None}, RotaryEmbedding(5e5)),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, RotaryEmbedding(1e6)),
        ({"rope_theta": 5e5, "rope_scaling": LLAMA3}, RotaryEmbedding(5e5, 8.0)),
        ({"rope_theta": 5e5, "rope_scaling": {**LLAMA3, "type": "llama3"}}, RotaryEmbedding(5e5, 8.0)),
    ],
)
def test_reads_the_rope_of_every_version_of_transformers(
    config: dict[str, Any], rope: RotaryEmbedding
) -> None:
    assert read_rope(config, "config.json") == rope


@pytest.mark.parametrize(
    ("table", "size", "changes", "message", "fitting"),
    [
        ("train", 3, {}, "8 attention heads", "1, 2"),
        ("train", 4, {}, "2 key/value heads", "1, 2"),
        ("train", 2, {"intermediate_size": 95}, "95 MLP columns", "1"),
        ("train", 2, EXPERTS, "9 MLP columns", "1"),
        ("rollout", 3, {}, "8 attention heads", "1, 2, 4, 8"),
        ("rollout", 4, {"num_key_value_heads": 3}, "3 key/value heads", "1"),
        ("rollout", 8, {"intermediate_size": 100}, "100 MLP columns", "1, 2, 4"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_those_that_do(
    table: str, size: int, changes: dict[str, int], message: str, fitting: str
) -> None:
    check = check_trainer_split if table == "train" else check_engine_split
    with pytest.raises(UsageError, match=f"{table}.tensor_parallel = {size} does not divide") as error:
        check(make_recipe(**{table: {"tensor_parallel": size}}), shape(**changes))
    assert error.value.message.endswith(message)
    assert error.value.hint.endswith(f"one of {fitting}")


def test_an_engine_replicates_key_value_heads() -> None:
    check_engine_split(make_recipe(rollout={"tensor_parallel": 8}), shape())


def test_whole_experts_need_not_be_divided() -> None:
    check_trainer_split(make_recipe(train={"tensor_parallel": 2, "expert_parallel": 2}), shape(**EXPERTS))
    check_engine_split(make_recipe(rollout={"tensor_parallel": 2, "expert_parallel": True}), shape(**EXPERTS))


@pytest.mark.parametrize(
    ("ranks", "changes", "message"),
    [(4, EXPERTS, "4 ranks .* do not divide the 6 experts"), (2, {}, "the model has no experts")],
)
def test_refuses_expert_parallel_that_does_not_fit(ranks: int, changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_trainer_split(make_recipe(train={"expert_parallel": ranks}), shape(**changes))


def test_refuses_more_tokens_than_the_context() -> None:
    check_context(make_recipe(rollout={"max_prompt_tokens": 55}), shape())
    with pytest.raises(UsageError, match="is 65; the model's context is 64"):
        check_context(make_recipe(rollout={"max_prompt_tokens": 56}), shape())
