"""The tensors and variants of each family, compared with transformers."""

from __future__ import annotations

from typing import Any

import pytest
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.model_families import FAMILIES, family_of

Shape = tuple[int, ...]


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
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 12,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def published(model_type: str, numbers: str, **more: Any) -> dict[str, Any]:
    """A config.json as people published it, cut to two layers; ``numbers`` are those that every one has."""
    keys = (
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "vocab_size",
        "max_position_embeddings",
    )
    every = dict(zip(keys, map(int, numbers.split()), strict=True))
    return {"model_type": model_type, "num_hidden_layers": 2, "rms_norm_eps": 1e-5, **every, **more}


PUBLISHED = {
    "Llama-2-7b": published(
        "llama", "4096 11008 32 32000 4096", hidden_act="silu", rope_scaling=None, tie_word_embeddings=False
    ),
    "Llama-3.2-1B": published(
        "llama",
        "2048 8192 32 128256 131072",
        num_key_value_heads=8,
        head_dim=64,
        attention_bias=False,
        mlp_bias=False,
        rope_theta=500000.0,
        rope_scaling=LLAMA3_ROPE,
        tie_word_embeddings=True,
        eos_token_id=[128001, 128008, 128009],
    ),
    "SmolLM2-135M": published(
        "llama",
        "576 1536 9 49152 8192",
        num_key_value_heads=3,
        attention_bias=False,
        rope_theta=100000,
        rope_scaling=None,
        tie_word_embeddings=True,
    ),
    "Qwen2.5-0.5B": published(
        "qwen2",
        "896 4864 14 151936 32768",
        num_key_value_heads=2,
        rope_theta=1000000.0,
        sliding_window=32768,
        use_sliding_window=False,
        tie_word_embeddings=True,
    ),
    "Qwen3-0.6B": published(
        "qwen3",
        "1024 3072 16 151936 40960",
        num_key_value_heads=8,
        head_dim=128,
        attention_bias=False,
        rope_theta=1000000,
        use_sliding_window=False,
        tie_word_embeddings=True,
    ),
    "Qwen3-30B-A3B": published(
        "qwen3_moe",
        "2048 6144 32 151936 40960",
        num_key_value_heads=4,
        head_dim=128,
        attention_bias=False,
        rope_theta=1000000.0,
        use_sliding_window=False,
        decoder_sparse_step=1,
        mlp_only_layers=[],
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        norm_topk_prob=True,
        tie_word_embeddings=False,
    ),
}


def tensors(config: dict[str, Any]) -> dict[str, Shape]:
    family = family_of(config, "config.json")
    return family.tensors(family.shape(config, "config.json"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_expects_the_tensors_that_transformers_makes(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    with torch.device("meta"):  # shapes alone, no memory
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(**PUBLISHED[name])
        )
    made = {
        stored: shape
        for tensor, parameter in model.named_parameters()
        for stored, shape in as_stored(tensor, tuple(parameter.shape))
    }
    assert tensors(PUBLISHED[name]) == made


def as_stored(name: str, shape: Shape) -> list[tuple[str, Shape]]:
    """A parameter as checkpoints have it; transformers keeps the experts of a layer in one."""
    layer, experts, kind = name.partition(".experts.")
    if not experts:
        return [(name, shape)]
    count, rows, columns = shape
    halves = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}[kind]
    return [
        (f"{layer}.experts.{expert}.{half}.weight", (rows // len(halves), columns))
        for expert in range(count)
        for half in halves
    ]


def test_every_family_is_compared_with_a_published_config() -> None:
    assert set(FAMILIES) == {config["model_type"] for config in PUBLISHED.values()}


@pytest.mark.parametrize(
    ("model_type", "change"),
    [
        ("qwen3", {"hidden_act": "gelu"}),
        ("qwen3", {"head_dim": None}),
        ("qwen3", {"use_sliding_window": True}),
        ("qwen2", {"use_sliding_window": True}),
        ("qwen2", {"num_key_value_heads": None}),
        ("qwen3_moe", {"decoder_sparse_step": 2}),
        ("qwen3_moe", {"mlp_only_layers": [0]}),
        ("qwen3_moe", {"num_experts": None}),
        ("qwen3_moe", {"num_experts_per_tok": None}),
        ("qwen3_moe", {"moe_intermediate_size": None}),
        ("llama", {"attention_bias": True}),
        ("llama", {"mlp_bias": True}),
        ("llama", {"rms_norm_eps": None}),
        ("llama", {"head_dim": None, "num_attention_heads": 3}),  # the head size is not a whole number
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ("llama", {"rope_scaling": LLAMA3_ROPE | {"high_freq_factor": 8.0}}),
        ("llama", {"rope_parameters": LLAMA3_ROPE | {"factor": None}}),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}),
    ],
)
def test_refuses_unsupported_variants(model_type: str, change: dict[str, Any]) -> None:
    config = {key: value for key, value in (CONFIG | change).items() if value is not None}
    with pytest.raises(UsageError):
        tensors(config | {"model_type": model_type})


def test_reads_missing_keys_as_transformers_does() -> None:
    config = CONFIG | {"model_type": "llama", "head_dim": None, "num_key_value_heads": None}
    shape = FAMILIES["llama"].shape(config, "config.json")
    assert (shape.head_dim, shape.num_key_value_heads) == (4, 4)
    experts = CONFIG | {"model_type": "qwen3_moe", "num_experts": None, "num_local_experts": 6}
    assert FAMILIES["qwen3_moe"].shape(experts, "config.json").num_experts == 6
