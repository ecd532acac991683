"""Settings of the built model that the numbers of a short text do not show."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from harness.tolerances import of_rounding

LLAMA_3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def frequencies(rank: int, world_size: int, master: str, path: str) -> torch.Tensor:
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint

    parallel.start("gloo", rank, world_size, master, 1)
    try:
        source = HFCheckpoint(Path(path))
        built = model.build(source.family, source.shape, torch.bfloat16, torch.device("cpu"), 1)
        return built.rotary_pos_emb.inv_freq
    finally:
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
    torch.testing.assert_close(ranks.run(frequencies, 1, str(directory))[0], expected, **tolerance)


def built_with(rank: int, world_size: int, master: str, path: str) -> tuple[SimpleNamespace, set[str]]:
    from torch import nn
    from vime_runtime.trainer import attention, model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint

    class OwnAttention(nn.Module):
        def __init__(self, config, **layer):
            super().__init__()

    parallel.start("gloo", rank, world_size, master, 1)
    attention.set_core_attention(OwnAttention)
    try:
        source = HFCheckpoint(Path(path))
        shape = source.family, source.shape, torch.bfloat16, torch.device("cpu"), 1
        built = model.build(*shape, recompute=True)
        names = "transformer_impl", "apply_rope_fusion", "recompute_granularity", "recompute_num_layers"
        settings = SimpleNamespace(**{name: getattr(built.config, name) for name in names})
        return settings, {
            type(layer.self_attention.core_attention).__name__ for layer in built.decoder.layers
        }
    finally:
        attention._core_attention = attention.PackedAttention
        parallel.stop()


def test_the_model_uses_the_local_spec_without_fused_rope(ranks, make_model):
    settings, attention = ranks.run(built_with, 1, str(make_model()))[0]
    assert settings.transformer_impl == "local"
    assert not settings.apply_rope_fusion
    assert (settings.recompute_granularity, settings.recompute_num_layers) == ("full", 1)
    assert attention == {"OwnAttention"}


def activations(rank: int, world_size: int, master: str, path: str) -> list[tuple[bool, str]]:
    from vime_runtime.trainer import model, parallel
    from vime_runtime.trainer.hf_checkpoint import HFCheckpoint

    parallel.start("gloo", rank, world_size, master, 1)
    try:
        source = HFCheckpoint(Path(path))
        built = model.build(source.family, source.shape, torch.bfloat16, torch.device("cpu"), 1)
        # Megatron uses the activation of the layer spec only with this setting.
        used = built.config.use_te_activation_func
        return [(used, type(layer.mlp.activation_func).__name__) for layer in built.decoder.layers]
    finally:
        parallel.stop()


def test_the_activation_on_a_cpu_is_swiglu(ranks, make_model):
    found = ranks.run(activations, 1, str(make_model()))[0]
    assert set(found) == {(True, "SwiGLU")}
