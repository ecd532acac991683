"""Qwen3, dense: RMSNorm, SwiGLU, grouped queries with per-head norms, rope, no biases."""

from __future__ import annotations

from vime_runtime.train.families.base import Family, Mapping

QWEN3 = Family(
    model_type="qwen3",
    qk_layernorm=True,
    required={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False},
    mappings=(
        Mapping(
            "embedding.word_embeddings.weight",
            "rows",
            {"model.embed_tokens.weight": ("vocabulary", "hidden")},
        ),
        Mapping("decoder.final_layernorm.weight", "whole", {"model.norm.weight": ("hidden",)}),
        Mapping("output_layer.weight", "rows", {"lm_head.weight": ("vocabulary", "hidden")}),
        Mapping(
            "decoder.layers.{}.input_layernorm.weight",
            "whole",
            {"model.layers.{}.input_layernorm.weight": ("hidden",)},
        ),
        Mapping(
            "decoder.layers.{}.self_attention.linear_qkv.weight",
            "qkv",
            {
                "model.layers.{}.self_attn.q_proj.weight": ("queries", "hidden"),
                "model.layers.{}.self_attn.k_proj.weight": ("keys", "hidden"),
                "model.layers.{}.self_attn.v_proj.weight": ("keys", "hidden"),
            },
        ),
        Mapping(
            "decoder.layers.{}.self_attention.q_layernorm.weight",
            "whole",
            {"model.layers.{}.self_attn.q_norm.weight": ("head_dim",)},
        ),
        Mapping(
            "decoder.layers.{}.self_attention.k_layernorm.weight",
            "whole",
            {"model.layers.{}.self_attn.k_norm.weight": ("head_dim",)},
        ),
        Mapping(
            "decoder.layers.{}.self_attention.linear_proj.weight",
            "columns",
            {"model.layers.{}.self_attn.o_proj.weight": ("hidden", "queries")},
        ),
        Mapping(
            "decoder.layers.{}.pre_mlp_layernorm.weight",
            "whole",
            {"model.layers.{}.post_attention_layernorm.weight": ("hidden",)},
        ),
        Mapping(
            "decoder.layers.{}.mlp.linear_fc1.weight",
            "rows",
            {
                "model.layers.{}.mlp.gate_proj.weight": ("mlp", "hidden"),
                "model.layers.{}.mlp.up_proj.weight": ("mlp", "hidden"),
            },
        ),
        Mapping(
            "decoder.layers.{}.mlp.linear_fc2.weight",
            "columns",
            {"model.layers.{}.mlp.down_proj.weight": ("hidden", "mlp")},
        ),
    ),
)
