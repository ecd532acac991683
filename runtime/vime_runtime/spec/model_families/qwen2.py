"""Qwen2 and Qwen2.5, dense: the projections to queries, keys and values have biases."""

from __future__ import annotations

from vime_runtime.spec.model_families.base import Family
from vime_runtime.spec.model_families.decoder import DECODER, QKV_BIASES, head_dim

QWEN2 = Family(
    model_type="qwen2",
    mappings=(*QKV_BIASES, *DECODER),
    required={"hidden_act": "silu", "use_sliding_window": False},
    defaults={"head_dim": head_dim},
)
