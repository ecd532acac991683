"""A Megatron-core GPTModel with the shape of a Hugging Face model, and its forward pass over a packed row."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer import ModuleSpec, TransformerConfig
from torch import Tensor, nn
from torch.nn.functional import silu

from vime_runtime.spec.model_families import ModelFamily
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.trainer.attention import core_attention, take_rows
from vime_runtime.trainer.hf_checkpoint import HFCheckpoint
from vime_runtime.trainer.mlp import ExpertLayer, LocalRouter, activation_class
from vime_runtime.trainer.packing import MicroBatch
from vime_runtime.trainer.parallel import ParallelGroups

RECOMPUTE = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}


def build(
    source: HFCheckpoint,
    dtype: torch.dtype,
    device: torch.device,
    groups: ParallelGroups,
    recompute: bool = False,
) -> GPTModel:
    """Build this rank's shard. Its parameters are allocated, not initialized: ``WeightBridge.load`` follows.

    Args:
        source: has the family and the shape of the model.
        dtype, device: of the parameters.
        groups: the vocabulary is padded to a multiple of the tensor-parallel size.
        recompute: recompute each layer's activations in the backward pass instead of keeping them.
    """
    family, shape = source.family, source.shape
    tensor_parallel, expert_parallel = groups.tensor.size(), groups.expert.size()
    activation = activation_class(device, family.has_experts)
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
        # Sum gradients over data-parallel ranks: the loss is already a mean over the tokens of all ranks.
        calculate_per_token_loss=True,
        # The fusions are CUDA kernels or torch.compile.
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
        gradient_accumulation_fusion=False,
        apply_rope_fusion=False,
        # Takes the activation from the layer spec; it need not be Transformer Engine's.
        use_te_activation_func=activation is not None,
        transformer_impl="local",  # there is no Transformer Engine for NPUs
        # Allocates on torch's default device, set below, instead of torch.cuda.
        use_cpu_initialization=True,
        perform_initialization=False,
        **(RECOMPUTE if recompute else {}),
    )
    with torch.device(device):
        model = GPTModel(
            config,
            _layer_spec(family, shape, groups.replicas, activation),
            vocab_size=-(-shape.vocab_size // tensor_parallel) * tensor_parallel,
            max_sequence_length=shape.max_position_embeddings,
            share_embeddings_and_output_weights=shape.tie_word_embeddings,
            position_embedding_type="rope",
            rotary_base=shape.rope.base,
            rope_scaling=shape.rope.factor is not None,
            rope_scaling_factor=shape.rope.factor or 1.0,
        )
    model.to(dtype)  # the norms are created in torch's default dtype
    # GPTModel then returns hidden states: the logits are computed in chunks, for response tokens only
    # (logprobs.py).
    model.post_process = False
    return model


def forward(model: GPTModel, micro_batch: MicroBatch) -> Tensor:
    """Return the last layer's output [N, hidden] for the N response tokens, in the model's dtype."""
    positions = micro_batch.positions
    # The rotary embedding returns one row per token instead of one per position.
    with model.rotary_pos_emb.register_forward_hook(lambda _, args, angles: angles[positions[0]]):
        hidden: Tensor = model(  # [tokens, 1, hidden]
            micro_batch.tokens, positions, attention_mask=None, packed_seq_params=micro_batch.sequences
        )
    return take_rows(hidden[:, 0], micro_batch.logit_rows)


def output_weight(model: GPTModel) -> Tensor:
    """Return this rank's rows of the output layer's weight, [local columns, hidden]."""
    tied = model.share_embeddings_and_output_weights
    weight: Tensor = model.shared_embedding_or_output_weight() if tied else model.output_layer.weight
    return weight


def _expert_settings(shape: ModelShape, tensor_parallel: int, expert_parallel: int) -> dict[str, Any]:
    """Return Megatron's settings of the MoE layers.

    With norm_topk_prob the softmax is over the selected experts only. This equals a softmax over all experts
    that is normalized after the selection, since softmax(z)_i / sum over selected = softmax(selected z)_i.
    """
    return {
        "num_moe_experts": shape.num_experts,
        "moe_router_topk": shape.num_experts_per_tok,
        "moe_ffn_hidden_size": shape.moe_intermediate_size,
        "moe_router_pre_softmax": not shape.norm_topk_prob,
        "moe_router_dtype": "fp32",
        # No auxiliary loss: only the policy gradient trains the router.
        "moe_router_load_balancing_type": "none",
        "expert_model_parallel_size": expert_parallel,
        "expert_tensor_parallel_size": tensor_parallel if expert_parallel == 1 else 1,
    }


def _layer_spec(
    family: ModelFamily,
    shape: ModelShape,
    replicas: dist.ProcessGroup | None,
    activation: type[nn.Module] | None,
) -> ModuleSpec:
    spec = get_gpt_layer_local_spec(
        num_experts=shape.num_experts or None, qk_layernorm=family.qk_layernorm, normalization="RMSNorm"
    )
    spec.submodules.self_attention.submodules.core_attention = core_attention()
    mlp = spec.submodules.mlp
    if family.has_experts:
        mlp.module = ExpertLayer
        mlp.params = {"replicas": replicas}
        mlp.submodules.router = LocalRouter
        mlp.submodules.experts.submodules.activation_func = activation
    else:
        mlp.submodules.activation_func = activation
    return spec
