"""What the families share: a decoder with RMSNorm, SwiGLU, grouped queries and rope, no biases."""

from __future__ import annotations

from typing import Any

from vime_runtime.spec.model_families.base import Mapping

ATTENTION = (
    Mapping(
        "embedding.word_embeddings.weight",
        "rows",
        {"model.embed_tokens.weight": ("vocabulary", "hidden")},
    ),
    Mapping("decoder.final_layernorm.weight", "whole", {"model.norm.weight": ("hidden",)}),
    Mapping("output_layer.weight", "rows", {"lm_head.weight": ("vocabulary", "hidden")}),
    Mapping(
        "decoder.layers.{layer}.input_layernorm.weight",
        "whole",
        {"model.layers.{layer}.input_layernorm.weight": ("hidden",)},
    ),
    Mapping(
        "decoder.layers.{layer}.self_attention.linear_qkv.weight",
        "qkv",
        {
            "model.layers.{layer}.self_attn.q_proj.weight": ("queries", "hidden"),
            "model.layers.{layer}.self_attn.k_proj.weight": ("keys", "hidden"),
            "model.layers.{layer}.self_attn.v_proj.weight": ("keys", "hidden"),
        },
    ),
    Mapping(
        "decoder.layers.{layer}.self_attention.linear_proj.weight",
        "columns",
        {"model.layers.{layer}.self_attn.o_proj.weight": ("hidden", "queries")},
    ),
    Mapping(
        "decoder.layers.{layer}.pre_mlp_layernorm.weight",
        "whole",
        {"model.layers.{layer}.post_attention_layernorm.weight": ("hidden",)},
    ),
)

DECODER = (
    *ATTENTION,
    Mapping(
        "decoder.layers.{layer}.mlp.linear_fc1.weight",
        "rows",
        {
            "model.layers.{layer}.mlp.gate_proj.weight": ("mlp", "hidden"),
            "model.layers.{layer}.mlp.up_proj.weight": ("mlp", "hidden"),
        },
    ),
    Mapping(
        "decoder.layers.{layer}.mlp.linear_fc2.weight",
        "columns",
        {"model.layers.{layer}.mlp.down_proj.weight": ("hidden", "mlp")},
    ),
)

# In place of the dense layers' MLP: a router, and experts that are MLPs of their own.
EXPERTS = (
    Mapping(
        "decoder.layers.{layer}.mlp.router.weight",
        "whole",
        {"model.layers.{layer}.mlp.gate.weight": ("experts", "hidden")},
    ),
    Mapping(
        "decoder.layers.{layer}.mlp.experts.local_experts.{expert}.linear_fc1.weight",
        "rows",
        {
            "model.layers.{layer}.mlp.experts.{expert}.gate_proj.weight": ("expert_mlp", "hidden"),
            "model.layers.{layer}.mlp.experts.{expert}.up_proj.weight": ("expert_mlp", "hidden"),
        },
    ),
    Mapping(
        "decoder.layers.{layer}.mlp.experts.local_experts.{expert}.linear_fc2.weight",
        "columns",
        {"model.layers.{layer}.mlp.experts.{expert}.down_proj.weight": ("hidden", "expert_mlp")},
    ),
)

# What a family has besides goes before DECODER: biases then travel close to the weights of their module,
# of which the engine holds back what has come until all of it has.
QK_NORMS = (
    Mapping(
        "decoder.layers.{layer}.self_attention.q_layernorm.weight",
        "whole",
        {"model.layers.{layer}.self_attn.q_norm.weight": ("head_dim",)},
    ),
    Mapping(
        "decoder.layers.{layer}.self_attention.k_layernorm.weight",
        "whole",
        {"model.layers.{layer}.self_attn.k_norm.weight": ("head_dim",)},
    ),
)

QKV_BIASES = (
    Mapping(
        "decoder.layers.{layer}.self_attention.linear_qkv.bias",
        "qkv",
        {
            "model.layers.{layer}.self_attn.q_proj.bias": ("queries",),
            "model.layers.{layer}.self_attn.k_proj.bias": ("keys",),
            "model.layers.{layer}.self_attn.v_proj.bias": ("keys",),
        },
    ),
)


def head_dim(config: dict[str, Any]) -> int:
    """The size of a head where ``config.json`` does not give it."""
    return config["hidden_size"] // config["num_attention_heads"]
