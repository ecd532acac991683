"""What a recipe's model takes at least, in bytes, computed from its config.json: never more than it will."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from vime_runtime.spec.model_families import FAMILIES
from vime_runtime.spec.model_shape import ModelShape
from vime_runtime.spec.recipe import Recipe

_SIZES = {"bfloat16": 2, "float32": 4}
# Gradient in fp32, and two moments; bf16 weights have fp32 master weights beside them.
_TRAINED = {"bfloat16": 2 + 4 + 4 + 8, "float32": 4 + 4 + 8}


@dataclass(frozen=True)
class Estimate:
    """Lower bounds for one device, and the number of ``parameters`` of the whole model.

    Of the ``parameters`` ``experts`` are those of experts, of which a token passes through a few only.
    ``trainer`` is weights, gradients, optimizer and the reference's weights,
    ``activations`` what backward needs of the fullest micro-batch, ``engine`` the weights, ``sequence`` the
    KV cache of one prompt and response of full length.
    """

    parameters: int
    experts: int
    trainer: int
    activations: int
    engine: int
    sequence: int


def estimate(recipe: Recipe, shape: ModelShape) -> Estimate:
    """Estimate a recipe with a model. ``config`` is its config.json, completed by its family."""
    shapes = FAMILIES[shape.model_type].tensors(shape)
    count = sum(map(prod, shapes.values()))
    experts = sum(prod(shape) for name, shape in shapes.items() if ".mlp.experts." in name)
    element, dtype = _SIZES[recipe.model.dtype], recipe.model.dtype
    train, rollout = recipe.train.tensor_parallel, recipe.rollout.tensor_parallel
    reference = element if recipe.algorithm.kl_coefficient > 0 else 0
    length = recipe.rollout.max_prompt_tokens + recipe.rollout.max_response_tokens
    # Of fewer key/value heads than ranks each rank holds one.
    heads = max(shape.num_key_value_heads // rollout, 1)
    # Experts are whole on one of the ranks that share them, or split as the rest is.
    divided = recipe.train.expert_parallel if recipe.train.expert_parallel > 1 else train
    a_rank = (count - experts) / train + experts / divided
    return Estimate(
        parameters=count,
        experts=experts,
        trainer=int(a_rank * (_TRAINED[dtype] + reference)),
        activations=_activations(recipe, shape, element),
        engine=count * element // rollout,
        sequence=2 * shape.num_hidden_layers * heads * shape.head_dim * element * length,
    )


def _activations(recipe: Recipe, shape: ModelShape, element: int) -> int:
    """The input of each layer, which even recomputation keeps, and the softmax over the vocabulary in fp32.

    One response is in one micro-batch as a whole, so one of the longest is the least that must fit.
    """
    rollout = recipe.rollout
    layers: int = shape.num_hidden_layers * shape.hidden_size * element
    softmax: int = shape.vocab_size * 4 // recipe.train.tensor_parallel
    return (rollout.max_prompt_tokens + rollout.max_response_tokens) * layers + (
        rollout.max_response_tokens * softmax
    )
