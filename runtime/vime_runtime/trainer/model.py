"""A Megatron-core GPTModel of a Hugging Face model's shape, and its forward over a packed row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer import ModuleSpec, TransformerConfig
from torch import Tensor
from torch.nn.functional import silu

from vime_runtime.spec.model_families import ModelFamily
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.trainer import core_attention
from vime_runtime.trainer.experts import Experts, Router
from vime_runtime.trainer.packing import Pack
from vime_runtime.trainer.swiglu import SwiGLU

RECOMPUTE = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def build(
    family: ModelFamily,
    shape: ModelShape,
    dtype: torch.dtype,
    device: torch.device,
    tensor_parallel: int,
    recompute: bool = False,
    expert_parallel: int = 1,
    replicas: dist.ProcessGroup | None = None,
) -> GPTModel:
    """Build this rank's shard. Its parameters are allocated, not initialised: a checkpoint fills them.

    The vocabulary is padded to a multiple of ``tensor_parallel``. With ``recompute`` each layer's
    activations are computed again in the backward pass instead of kept.

    With ``expert_parallel`` above 1 the experts are divided among so many ranks, each of them whole;
    ``replicas`` as in ``Experts``.
    """
    config = TransformerConfig(
        num_layers=shape.num_hidden_layers,
        hidden_size=shape.hidden_size,
        ffn_hidden_size=shape.intermediate_size,
        num_attention_heads=shape.num_attention_heads,
        num_query_groups=shape.num_key_value_heads,
        kv_channels=shape.head_dim,
        normalization="RMSNorm",
        layernorm_epsilon=shape.rms_norm_eps,
        qk_layernorm=family.qk_layernorm,
        gated_linear_unit=True,
        activation_func=silu,
        add_bias_linear=False,
        add_qkv_bias=family.qkv_bias,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        tensor_model_parallel_size=tensor_parallel,
        **(_expert_settings(shape, tensor_parallel, expert_parallel) if family.has_experts else {}),
        # Gradients are summed over data-parallel ranks; the loss is already a mean over all their tokens.
        calculate_per_token_loss=True,
        # Fusions are CUDA kernels or torch.compile; the local spec does without.
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        gradient_accumulation_fusion=False,
        apply_rope_fusion=False,
        # Megatron's name for an activation from the layer spec, whoever's it is.
        use_te_activation_func=device.type == "cpu" and not family.has_experts,
        transformer_impl="local",  # there is no Transformer Engine for NPUs
        # Takes memory from torch's default device, set below, and not from torch.cuda.
        use_cpu_initialization=True,
        perform_initialization=False,
        **(RECOMPUTE if recompute else {}),
    )
    with torch.device(device):
        model = GPTModel(
            config,
            _layer_spec(family, shape, replicas),
            vocab_size=-(-shape.vocab_size // tensor_parallel) * tensor_parallel,
            max_sequence_length=shape.max_position_embeddings,
            share_embeddings_and_output_weights=shape.tie_word_embeddings,
            position_embedding_type="rope",
            rotary_base=shape.rope.base,
            rope_scaling=shape.rope.factor is not None,
            rope_scaling_factor=shape.rope.factor or 1.0,
        )
    model.to(dtype)  # the norms are born in torch's default dtype
    _mark_shards(model, family, shape, shape.local_experts(0, expert_parallel))
    return model


def forward(model: GPTModel, pack: Pack) -> Tensor:
    """Logits [N, columns of this rank] for the N response tokens of a pack, in the model's dtype."""
    with _only_rows(model.output_layer, pack.rows), _at(model.rotary_pos_emb, pack.positions[0]):
        logits = model(pack.tokens, pack.positions, attention_mask=None, packed_seq_params=pack.sequences)
    return logits[0]


def _expert_settings(shape: ModelShape, tensor_parallel: int, expert_parallel: int) -> dict[str, Any]:
    """Megatron's settings for the layers of experts.

    Softmax over all experts before the choice or over the chosen ones after it: the latter is what
    renormalising makes of the former, since softmax(z)_i / sum of the chosen = softmax(chosen z)_i.
    """
    return {
        "num_moe_experts": shape.num_experts,
        "moe_router_topk": shape.num_experts_per_tok,
        "moe_ffn_hidden_size": shape.moe_intermediate_size,
        "moe_router_pre_softmax": not shape.norm_topk_prob,
        "moe_router_dtype": "fp32",
        # No auxiliary loss: the policy gradient alone moves the router.
        "moe_router_load_balancing_type": "none",
        "expert_model_parallel_size": expert_parallel,
        "expert_tensor_parallel_size": tensor_parallel if expert_parallel == 1 else 1,
    }


def _mark_shards(model: GPTModel, family: ModelFamily, shape: ModelShape, experts_here: range) -> None:
    """Say which parameters are split; Megatron does so only where it initialises them.

    The norm of the gradient depends on it: what all ranks hold alike counts once.
    """
    parameters = dict(model.named_parameters())
    for mapping in family.parameters(shape):
        name = mapping.parameter(experts_here)
        if name is not None:
            parameters[name].tensor_model_parallel = mapping.layout != "whole"


def _layer_spec(family: ModelFamily, shape: ModelShape, replicas: dist.ProcessGroup | None) -> ModuleSpec:
    spec = get_gpt_layer_local_spec(
        num_experts=shape.num_experts or None, qk_layernorm=family.qk_layernorm, normalization="RMSNorm"
    )
    spec.submodules.self_attention.submodules.core_attention = core_attention.chosen()
    if not family.has_experts:
        spec.submodules.mlp.submodules.activation_func = SwiGLU  # where the settings say so
    else:
        layer = spec.submodules.mlp
        layer.module = Experts
        layer.params = {"replicas": replicas}
        layer.submodules.router = Router
    return spec


@contextmanager
def _only_rows(output_layer: torch.nn.Module, rows: Tensor) -> Iterator[None]:
    """Let the output layer see only ``rows``: logits of prompt tokens are never computed."""
    handle = output_layer.register_forward_pre_hook(lambda _, args: (args[0][rows], *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _at(rotary_embedding: torch.nn.Module, positions: Tensor) -> Iterator[None]:
    """Let the rotary embedding give the row of each token instead of one for each position."""
    handle = rotary_embedding.register_forward_hook(lambda _, args, angles: angles[positions])
    try:
        yield
    finally:
        handle.remove()
