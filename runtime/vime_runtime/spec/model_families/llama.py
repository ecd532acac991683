"""Llama 1 to 3, and what is built like it (SmolLM2, for one)."""

from __future__ import annotations

from vime_runtime.spec.model_families.base import Family
from vime_runtime.spec.model_families.decoder import DECODER, head_dim

LLAMA = Family(
    model_type="llama",
    mappings=DECODER,
    required={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    defaults={
        "head_dim": head_dim,
        "num_key_value_heads": lambda config: config["num_attention_heads"],
    },
)
