"""Megatron's model as it is built, where the numbers of a short text would not tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

LLAMA_3 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def frequencies(rank: int, world_size: int, master: str, path: str) -> torch.Tensor:
    from vime_runtime.train import model, parallel
    from vime_runtime.train.checkpoint import Checkpoint

    parallel.start("gloo", rank, world_size, master, 1)
    try:
        source = Checkpoint(Path(path))
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
def test_frequencies_are_those_of_transformers(ranks, make_model, rope):
    directory = make_model("llama", head_dim=64, rope_parameters=rope)
    expected = LlamaRotaryEmbedding(AutoConfig.from_pretrained(directory)).inv_freq
    unscaled = rope["rope_theta"] ** (-torch.arange(0, 64, 2) / 64)
    assert torch.allclose(expected, unscaled) == (rope["rope_type"] == "default")
    torch.testing.assert_close(ranks.run(frequencies, 1, str(directory))[0], expected, rtol=1e-6, atol=0)
