"""Qwen3, dense: queries and keys are normalised per head."""

from __future__ import annotations

from vime_runtime.spec.model_families.base import Family
from vime_runtime.spec.model_families.decoder import DECODER, QK_NORMS

QWEN3 = Family(
    model_type="qwen3",
    mappings=(*QK_NORMS, *DECODER),
    required={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False},
)
