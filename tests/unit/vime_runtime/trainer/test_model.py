"""Settings of the built model that the numbers of a short text do not show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import FileStore
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from harness.tolerances import of_rounding

LLAMA_3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def describe_model(rank: int, world_size: int, store: str, path: str) -> dict[str, Any]:
    """Build a model with recompute and another attention class; return what the tests compare."""
    from torch import nn
    from vime_runtime.trainer import attention, model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint

    class OwnAttention(nn.Module):
        def __init__(self, config, **layer):
            super().__init__()

    groups = parallel.start("gloo", rank, world_size, FileStore(store, world_size), 1)
    attention.set_core_attention(OwnAttention)
    try:
        source = HFCheckpoint(Path(path))
        built = model.build(source, torch.bfloat16, torch.device("cpu"), groups, recompute=True)
        layers = built.decoder.layers
        return {
            "inv_freq": built.rotary_pos_emb.inv_freq,
            "transformer_impl": built.config.transformer_impl,
            "apply_rope_fusion": built.config.apply_rope_fusion,
            "recompute": (built.config.recompute_granularity, built.config.recompute_num_layers),
            "attention": {type(layer.self_attention.core_attention).__name__ for layer in layers},
            "activation": {type(layer.mlp.activation_func).__name__ for layer in layers},
            # Megatron uses the activation of the layer spec only with this setting.
            "use_te_activation_func": built.config.use_te_activation_func,
        }
    finally:
        attention.set_core_attention(attention.PackedAttention)
        parallel.stop()


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "default", "rope_theta": 1e5},
        {"rope_type": "llama3", "rope_theta": 5e5, "original_max_position_embeddings": 8192, **LLAMA_3},
    ],
    ids=["default", "llama3"],
)
def test_rotary_frequencies_equal_those_of_transformers(ranks, make_model, rope):
    directory = make_model("llama", head_dim=64, rope_parameters=rope)
    expected = LlamaRotaryEmbedding(AutoConfig.from_pretrained(directory)).inv_freq
    unscaled = rope["rope_theta"] ** (-torch.arange(0, 64, 2) / 64)
    # A power, its inverse, and a weighted mean for llama3.
    tolerance = of_rounding(torch.float32, 16)
    assert torch.allclose(expected, unscaled, **tolerance) == (rope["rope_type"] == "default")
    found = ranks.run(describe_model, 1, str(directory))[0]["inv_freq"]
    torch.testing.assert_close(found, expected, **tolerance)


def test_the_model_uses_the_local_spec_without_fused_rope(ranks, make_model):
    model = ranks.run(describe_model, 1, str(make_model()))[0]
    assert model["transformer_impl"] == "local"
    assert not model["apply_rope_fusion"]
    assert model["recompute"] == ("full", 1)
    assert model["attention"] == {"OwnAttention"}
    assert (model["use_te_activation_func"], model["activation"]) == (True, {"SwiGLU"})
