"""What a model family is: how its ``config.json`` reads, and where its tensors go in Megatron's model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import gcd
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.model_families import rope
from vime_runtime.spec.model_families.rope import Rope


@dataclass(frozen=True)
class ModelShape:
    """The numbers that make a decoder-only transformer of one family.

    A family whose layers choose among experts has ``experts`` of ``expert_mlp`` rows, of which each token
    takes ``active_experts``; the weights of those it takes add up to one where they are ``renormalised``.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    positions: int
    norm_eps: float
    rope: Rope
    tied: bool
    experts: int = 0
    active_experts: int = 0
    expert_mlp: int = 0
    renormalised: bool = False

    @property
    def queries(self) -> int:
        """Rows of the query projection; unlike ``hidden`` when head_dim is not hidden / heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.kv_heads * self.head_dim

    def experts_of(self, rank: int, ranks: int) -> range:
        """The experts of one of ``ranks`` that have as many each."""
        each = self.experts // ranks
        return range(rank * each, (rank + 1) * each)

    def check_tensor_parallel(self, size: int, where: str, whole_experts: bool = False) -> None:
        """Raise UsageError unless every dimension that is split divides by ``size``.

        ``whole_experts``: they are divided among the ranks, and not each of them split.
        """
        mlp = self.expert_mlp if self.experts else self.mlp
        split = {"attention heads": self.heads, "key/value heads": self.kv_heads}
        if not (self.experts and whole_experts):
            split["MLP rows"] = mlp
        common = gcd(*split.values())
        for what, count in split.items():
            if count % size:
                fitting = ", ".join(str(n) for n in range(1, common + 1) if common % n == 0)
                raise UsageError(
                    f"train.tensor_parallel = {size} does not divide the {count} {what} of {where}",
                    f"choose a tensor_parallel that divides all that is split: {fitting}",
                )


@dataclass(frozen=True)
class Mapping:
    """One Megatron parameter and the Hugging Face tensors it is made of.

    Attributes:
        megatron: its name in Megatron's model; ``{layer}`` stands for the index of the layer, ``{expert}``
            for that of the expert among those of its rank.
        layout: how the tensors are fused and split, a key of ``sync.bridge.LAYOUTS``.
        hf: name of each tensor to its dimensions, as attributes of ModelShape.
        expert: the number of the expert that it belongs to.
    """

    megatron: str
    layout: str
    hf: dict[str, tuple[str, ...]]
    expert: int | None = None

    def at(self, layer: int, expert: int | None = None) -> Mapping:
        """The same mapping of one layer, and of one expert where it is of an expert."""
        return Mapping(
            self.megatron.replace("{layer}", str(layer)),
            self.layout,
            {name.format(layer=layer, expert=expert): dims for name, dims in self.hf.items()},
            expert,
        )

    def parameter(self, experts_here: range) -> str | None:
        """Its name in the model of a rank that has these experts; None where another rank has it."""
        if self.expert is None:
            return self.megatron
        if self.expert not in experts_here:
            return None
        return self.megatron.replace("{expert}", str(experts_here.index(self.expert)))


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        model_type: ``model_type`` in ``config.json``.
        mappings: every parameter.
        required: keys and values that ``config.json`` must have for the model to be what is built here.
        defaults: what transformers makes of the rest of ``config.json`` where it leaves a key out.
    """

    model_type: str
    mappings: tuple[Mapping, ...]
    required: dict[str, Any]
    defaults: dict[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)

    @property
    def qk_layernorm(self) -> bool:
        """Whether queries and keys are normalised per head."""
        return self._has("q_layernorm.weight")

    @property
    def qkv_bias(self) -> bool:
        """Whether the projections to queries, keys and values have biases."""
        return self._has("linear_qkv.bias")

    @property
    def has_experts(self) -> bool:
        """Whether every layer chooses among experts."""
        return self._has("router.weight")

    def shape(self, config: dict[str, Any], where: str) -> ModelShape:
        """Read ``config.json``. Raises UsageError for a missing key or a variant that is not supported."""
        for key, wanted in self.required.items():
            if config.get(key, wanted) != wanted:
                raise UsageError(
                    f"{where}: {key} is {config[key]!r}; the trainer supports {wanted!r} only",
                    "choose a model without it",
                )
        try:
            config = self._completed(config)
            return ModelShape(
                layers=config["num_hidden_layers"],
                hidden=config["hidden_size"],
                heads=config["num_attention_heads"],
                kv_heads=config["num_key_value_heads"],
                head_dim=config["head_dim"],
                mlp=config["intermediate_size"],
                vocabulary=config["vocab_size"],
                positions=config["max_position_embeddings"],
                norm_eps=config["rms_norm_eps"],
                rope=rope.read(config, where),
                tied=config.get("tie_word_embeddings", False),  # transformers' default in every family here
                **(_experts(config) if self.has_experts else {}),
            )
        except KeyError as e:
            raise UsageError(f"{where} lacks {e.args[0]!r}", "save the model again with transformers") from e

    def parameters(self, shape: ModelShape) -> Iterator[Mapping]:
        """Every parameter of a model of this shape, layer indices filled in; those of the layers last."""
        for mapping in self.mappings:
            if "{layer}" in mapping.megatron:
                continue
            if not (shape.tied and mapping.megatron == "output_layer.weight"):
                yield mapping
        of_layers = [mapping for mapping in self.mappings if "{layer}" in mapping.megatron]
        of_experts = [mapping for mapping in of_layers if "{expert}" in mapping.megatron]
        for layer in range(shape.layers):
            yield from (mapping.at(layer) for mapping in of_layers if mapping not in of_experts)
            for expert in range(shape.experts):
                yield from (mapping.at(layer, expert) for mapping in of_experts)

    def tensors(self, shape: ModelShape) -> dict[str, tuple[int, ...]]:
        """Name and shape of every Hugging Face tensor."""
        return {
            name: tuple(getattr(shape, dim) for dim in dims)
            for mapping in self.parameters(shape)
            for name, dims in mapping.hf.items()
        }

    def _completed(self, config: dict[str, Any]) -> dict[str, Any]:
        """``config`` with what it leaves out, or says nothing about with null."""
        absent = {key: value for key, value in self.defaults.items() if config.get(key) is None}
        return config | {key: value(config) for key, value in absent.items()}

    def _has(self, parameter: str) -> bool:
        return any(mapping.megatron.endswith(parameter) for mapping in self.mappings)


def _experts(config: dict[str, Any]) -> dict[str, Any]:
    """What ``config.json`` says of experts; transformers' default is not to renormalise."""
    return {
        "experts": config["num_experts"],
        "active_experts": config["num_experts_per_tok"],
        "expert_mlp": config["moe_intermediate_size"],
        "renormalised": config.get("norm_topk_prob", False),
    }
