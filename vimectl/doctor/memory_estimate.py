"""Estimate the memory that a model needs in a recipe: lower bounds, from its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vime_runtime.spec.model_families import FAMILIES
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.recipe import Recipe

_DTYPE_BYTES = {"bfloat16": 2, "float32": 4}
# Bytes a parameter: weight, fp32 gradient, two fp32 moments; bf16 weights also have fp32 master weights.
_TRAINED = {"bfloat16": 2 + 4 + 4 + 8, "float32": 4 + 4 + 8}
# Bytes a parameter in a checkpoint: bf16 weights, and the optimizer's state in fp32.
_SAVED = {"bfloat16": 14, "float32": 12}


@dataclass(frozen=True)
class MemoryEstimate:
    """Lower bounds in bytes for one device, and the number of ``parameters`` of the whole model.

    ``experts`` is the part of the parameters that belongs to experts. ``trainer`` is weights, gradients,
    optimizer and the reference's weights; ``activations`` what the backward pass needs of the fullest
    micro-batch; ``engine`` the weights; ``sequence`` the KV cache of one prompt and response of full length.
    ``state`` is the size of one checkpoint.
    """

    parameters: int
    experts: int
    trainer: int
    activations: int
    engine: int
    sequence: int
    state: int


def estimate(recipe: Recipe, shape: ModelShape) -> MemoryEstimate:
    """Estimate the memory of a model of this shape in a recipe."""
    tensors = FAMILIES[shape.model_type].tensors(shape)
    count = sum(map(prod, tensors.values()))
    experts = sum(prod(dims) for name, dims in tensors.items() if ".mlp.experts." in name)
    element, dtype = _DTYPE_BYTES[recipe.model.dtype], recipe.model.dtype
    train, rollout = recipe.train.tensor_parallel, recipe.rollout.tensor_parallel
    reference = element if recipe.algorithm.kl_coefficient > 0 else 0
    response = recipe.rollout.max_response_tokens
    length = recipe.rollout.max_prompt_tokens + response
    # With fewer KV heads than TP ranks, each rank has one.
    heads = max(shape.num_key_value_heads // rollout, 1)
    # With expert parallelism each expert is whole on one rank; otherwise it is sharded like the rest.
    expert_ranks = recipe.train.expert_parallel if recipe.train.expert_parallel > 1 else train
    per_rank = (count - experts) / train + experts / expert_ranks
    # The inputs of all layers, which recomputation keeps too, and the fp32 softmax. A response is never split
    # over micro-batches, so one of the longest is the least that must fit.
    layers = shape.num_hidden_layers * shape.hidden_size * element
    softmax = shape.vocab_size * 4 // train
    return MemoryEstimate(
        parameters=count,
        experts=experts,
        trainer=int(per_rank * (_TRAINED[dtype] + reference)),
        activations=length * layers + response * softmax,
        engine=count * element // rollout,
        sequence=2 * shape.num_hidden_layers * heads * shape.head_dim * element * length,
        state=_SAVED[dtype] * count,
    )
