"""The tool's list of tensors, which is data, against the trainer's own."""

from __future__ import annotations

import pytest

from vimectl.recipe.families import known

CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "vocab_size": 11,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e4,
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", sorted(known()))
def test_tool_and_trainer_expect_the_same_tensors(model_type: str, tied: bool) -> None:
    runtime = pytest.importorskip("vime_runtime.train.families")
    config = CONFIG | {"model_type": model_type, "tie_word_embeddings": tied}
    family = runtime.get(config, "config.json")
    assert known()[model_type].expected(config, "config.json") == family.tensors(
        family.shape(config, "config.json")
    )


def test_tool_and_trainer_know_the_same_families() -> None:
    runtime = pytest.importorskip("vime_runtime.train.families")
    assert set(known()) == set(runtime.FAMILIES)
