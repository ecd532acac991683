"""Qwen3 with experts in every layer, of which each token takes a few."""

from __future__ import annotations

from vime_runtime.spec.model_families.base import Family
from vime_runtime.spec.model_families.decoder import ATTENTION, EXPERTS, QK_NORMS

QWEN3_MOE = Family(
    model_type="qwen3_moe",
    mappings=(*QK_NORMS, *ATTENTION, *EXPERTS),
    required={
        "hidden_act": "silu",
        "attention_bias": False,
        "use_sliding_window": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    # The key's name since transformers 5.
    defaults={"num_experts": lambda config: config["num_local_experts"]},
)
