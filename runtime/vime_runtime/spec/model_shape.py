"""The numbers of a decoder-only transformer, and whether they fit the parallel sizes of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import Recipe

# The rotary base that transformers takes where config.json gives none.
DEFAULT_ROPE_BASE = 10_000.0
# Megatron-core hard-codes these constants of Llama 3.1's rope scaling; only the factor is an argument.
LLAMA3_ROPE = {"original_max_position_embeddings": 8192, "low_freq_factor": 1, "high_freq_factor": 4}

SAVE_AGAIN = "save the model again with transformers, which writes every key"


@dataclass(frozen=True)
class RotaryEmbedding:
    """The base of the frequencies, and the factor of Llama 3.1's scaling if the model uses it."""

    base: float
    factor: float | None = None


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of one model, named as in ``config.json``.

    In a mixture-of-experts model every layer has ``num_experts`` experts of ``moe_intermediate_size``. Each
    token uses ``num_experts_per_tok`` of them; with ``norm_topk_prob`` their weights are normalized to sum 1.
    """

    model_type: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope: RotaryEmbedding
    tie_word_embeddings: bool
    num_experts: int = 0
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0
    norm_topk_prob: bool = False

    @property
    def query_size(self) -> int:
        """Rows of the query projection. It differs from ``hidden_size`` when head_dim is set by itself."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_size(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.num_key_value_heads * self.head_dim

    def local_experts(self, rank: int, ranks: int) -> range:
        """Return the experts of one of ``ranks`` expert-parallel ranks."""
        count = self.num_experts // ranks
        return range(rank * count, (rank + 1) * count)


def read_rope(config: dict[str, Any], where: str) -> RotaryEmbedding:
    """Read the rotary embedding of ``config.json``.

    transformers 5 writes ``rope_parameters``; earlier versions write ``rope_scaling`` and ``rope_theta``.

    Raises:
        UsageError: Megatron-core has no such scaling.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    base = float(rope.get("rope_theta") or config.get("rope_theta") or DEFAULT_ROPE_BASE)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return RotaryEmbedding(base)
    if kind != "llama3":
        raise unsupported(where, "rope_type", kind, ["default", "llama3"])
    if not rope.get("factor"):
        raise not_positive(where, "factor of the llama3 rope", rope.get("factor"))
    for key, value in LLAMA3_ROPE.items():
        if rope.get(key) != value:
            raise unsupported(where, f"{key} of the llama3 rope", rope.get(key), [value])
    return RotaryEmbedding(base, float(rope["factor"]))


def check_trainer_split(recipe: Recipe, shape: ModelShape) -> None:
    """Check that the trainer's ranks can share the model. Raises UsageError with the sizes that work."""
    train = recipe.train
    _check_tensor_parallel(
        "train", train.tensor_parallel, _trainer_misfit(shape, whole_experts=train.expert_parallel > 1), shape
    )
    _check_expert_parallel("train", train.expert_parallel, shape)


def check_engine_split(recipe: Recipe, shape: ModelShape) -> None:
    """Check that the ranks of an engine can share the model. Raises UsageError as ``check_trainer_split``.

    vLLM replicates key/value heads over ranks when there are fewer heads than ranks.
    """
    rollout = recipe.rollout
    trainer_misfit = _trainer_misfit(shape, whole_experts=rollout.expert_parallel)

    def misfit(size: int) -> str | None:
        found = trainer_misfit(size)
        replicated = size % shape.num_key_value_heads == 0
        if found is not None and "key/value" in found and replicated:
            return _mlp_misfit(shape, size, rollout.expert_parallel)
        return found

    _check_tensor_parallel("rollout", rollout.tensor_parallel, misfit, shape)
    _check_expert_parallel("rollout", rollout.tensor_parallel if rollout.expert_parallel else 1, shape)


def check_context(recipe: Recipe, shape: ModelShape) -> None:
    """Check that prompt and response fit into the model's context. Raises UsageError if they do not."""
    tokens = recipe.rollout.max_prompt_tokens + recipe.rollout.max_response_tokens
    if tokens > shape.max_position_embeddings:
        raise UsageError(
            f"rollout.max_prompt_tokens + max_response_tokens is {tokens}; "
            f"the model's context is {shape.max_position_embeddings}",
            "lower one of the two",
        )


def unsupported(where: str, key: str, found: Any, supported: list[Any]) -> UsageError:
    """Return the error for a value of ``config.json`` that the trainer does not support."""
    values = " and ".join(repr(value) for value in supported)
    return UsageError(
        f"{where}: {key} is {found!r}; supported {'are' if len(supported) > 1 else 'is'} {values} only",
        "use a model without it",
    )


def not_positive(where: str, key: str, found: Any) -> UsageError:
    """Return the error for a number of ``config.json`` that is missing or not positive."""
    return UsageError(f"{where}: {key} should be a positive number, found {found!r}", SAVE_AGAIN)


def _trainer_misfit(shape: ModelShape, whole_experts: bool) -> Callable[[int], str | None]:
    def misfit(size: int) -> str | None:
        if shape.num_attention_heads % size:
            return f"{shape.num_attention_heads} attention heads"
        if shape.num_key_value_heads % size:
            return f"{shape.num_key_value_heads} key/value heads"
        return _mlp_misfit(shape, size, whole_experts)

    return misfit


def _mlp_misfit(shape: ModelShape, size: int, whole_experts: bool) -> str | None:
    if shape.num_experts and whole_experts:
        return None
    columns = shape.moe_intermediate_size if shape.num_experts else shape.intermediate_size
    return f"{columns} MLP columns" if columns % size else None


def _check_tensor_parallel(
    table: str, size: int, misfit: Callable[[int], str | None], shape: ModelShape
) -> None:
    what = misfit(size)
    if what is not None:
        fitting = [str(n) for n in range(1, shape.num_attention_heads + 1) if misfit(n) is None]
        raise UsageError(
            f"{table}.tensor_parallel = {size} does not divide the model's {what}",
            f"--set {table}.tensor_parallel=N with N one of {', '.join(fitting)}",
        )


def _check_expert_parallel(table: str, ranks: int, shape: ModelShape) -> None:
    if ranks == 1:
        return
    if not shape.num_experts:
        raise UsageError(f"{table}.expert_parallel is on, but the model has no experts", "leave it out")
    if shape.num_experts % ranks:
        raise UsageError(
            f"{ranks} ranks ({table}.expert_parallel) do not divide the {shape.num_experts} experts",
            "use as many ranks as divide them",
        )
