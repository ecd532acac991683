"""The numbers of a decoder-only transformer, and whether they fit the parallel sizes of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import Recipe

# The rotary base that transformers takes where config.json gives none.
DEFAULT_ROPE_BASE = 10_000.0
# Megatron-core hard-codes these constants of Llama 3.1's rope scaling; only the factor is an argument.
LLAMA3_ROPE = {"original_max_position_embeddings": 8192, "low_freq_factor": 1, "high_freq_factor": 4}


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
    _check_split("train", train.tensor_parallel, train.expert_parallel, shape, replicates_heads=False)


def check_engine_split(recipe: Recipe, shape: ModelShape) -> None:
    """Check that the ranks of an engine can share the model. Raises UsageError as ``check_trainer_split``.

    vLLM replicates key/value heads over ranks when there are fewer heads than ranks.
    """
    size = recipe.rollout.tensor_parallel
    expert_ranks = size if recipe.rollout.expert_parallel else 1
    _check_split("rollout", size, expert_ranks, shape, replicates_heads=True)


def _check_split(table: str, size: int, expert_ranks: int, shape: ModelShape, replicates_heads: bool) -> None:
    heads, pairs, experts = shape.num_attention_heads, shape.num_key_value_heads, shape.num_experts
    columns = shape.moe_intermediate_size if experts else shape.intermediate_size

    def misfit(ranks: int) -> str | None:
        if heads % ranks:
            return f"{heads} attention heads"
        if pairs % ranks and not (replicates_heads and ranks % pairs == 0):
            return f"{pairs} key/value heads"
        whole_experts = experts and expert_ranks > 1
        return f"{columns} MLP columns" if columns % ranks and not whole_experts else None

    if what := misfit(size):
        fitting = [str(ranks) for ranks in range(1, heads + 1) if misfit(ranks) is None]
        raise UsageError(
            f"{table}.tensor_parallel = {size} does not divide the model's {what}",
            f"--set {table}.tensor_parallel=N with N one of {', '.join(fitting)}",
        )
    if expert_ranks > 1 and not experts:
        raise UsageError(f"{table}.expert_parallel is on, but the model has no experts", "leave it out")
    if experts % expert_ranks:
        raise UsageError(
            f"{expert_ranks} ranks ({table}.expert_parallel) do not divide the {experts} experts",
            "use as many ranks as divide them",
        )


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
    return UsageError(
        f"{where}: {key} should be a positive number, found {found!r}",
        "save the model again with transformers, which writes every key",
    )
