"""What a model family is: how its ``config.json`` reads, and where its tensors go in Megatron's model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vime_runtime.errors import InputError


@dataclass(frozen=True)
class ModelShape:
    """The numbers that make a dense decoder-only transformer of one family."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocabulary: int
    positions: int
    norm_eps: float
    rope_base: float
    tied: bool

    @property
    def queries(self) -> int:
        """Rows of the query projection; unlike ``hidden`` when head_dim is not hidden / heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Rows of the key projection, and of the value projection."""
        return self.kv_heads * self.head_dim

    def check_tensor_parallel(self, size: int, where: str) -> None:
        """Raise InputError unless every dimension that is split divides by ``size``."""
        for what, count in (
            ("attention heads", self.heads),
            ("key/value heads", self.kv_heads),
            ("MLP rows", self.mlp),
        ):
            if count % size:
                raise InputError(
                    f"train.tensor_parallel = {size} does not divide the {count} {what} of {where}",
                    "choose a tensor_parallel that divides them",
                )


@dataclass(frozen=True)
class Mapping:
    """One Megatron parameter and the Hugging Face tensors it is made of.

    Attributes:
        megatron: its name in Megatron's model; ``{}`` stands for the index of the layer.
        layout: how the tensors are fused and split, a key of ``sync.bridge.LAYOUTS``.
        hf: name of each tensor to its dimensions, as attributes of ModelShape.
    """

    megatron: str
    layout: str
    hf: dict[str, tuple[str, ...]]

    def at(self, layer: int) -> Mapping:
        """The same mapping with the layer index filled in."""
        return Mapping(
            self.megatron.format(layer),
            self.layout,
            {name.format(layer): dims for name, dims in self.hf.items()},
        )


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        model_type: ``model_type`` in ``config.json``.
        qk_layernorm: whether queries and keys are normalised per head.
        required: keys and values that ``config.json`` must have for the model to be what is built here.
        mappings: every parameter.
    """

    model_type: str
    qk_layernorm: bool
    required: dict[str, Any]
    mappings: tuple[Mapping, ...]

    def shape(self, config: dict[str, Any], where: str) -> ModelShape:
        """Read ``config.json``. Raises InputError for a missing key or a variant that is not supported."""
        for key, wanted in self.required.items():
            if config.get(key, wanted) != wanted:
                raise InputError(
                    f"{where}: {key} is {config[key]!r}; the trainer supports {wanted!r} only",
                    "choose a model without it",
                )
        try:
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
                rope_base=_rope_base(config, where),
                tied=config["tie_word_embeddings"],
            )
        except KeyError as e:
            raise InputError(f"{where} lacks {e.args[0]!r}", "save the model again with transformers") from e

    def parameters(self, shape: ModelShape) -> Iterator[Mapping]:
        """Every parameter of a model of this shape, layer indices filled in, in the model's order."""
        for mapping in self.mappings:
            if "{}" in mapping.megatron:
                continue
            if not (shape.tied and mapping.megatron == "output_layer.weight"):
                yield mapping
        for layer in range(shape.layers):
            for mapping in self.mappings:
                if "{}" in mapping.megatron:
                    yield mapping.at(layer)

    def tensors(self, shape: ModelShape) -> dict[str, tuple[int, ...]]:
        """Name and shape of every Hugging Face tensor."""
        return {
            name: tuple(getattr(shape, dim) for dim in dims)
            for mapping in self.parameters(shape)
            for name, dims in mapping.hf.items()
        }


def _rope_base(config: dict[str, Any], where: str) -> float:
    """The base of the rotary embedding: ``rope_theta`` at the top is how transformers before 5 wrote it."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InputError(f"{where}: rope type {kind!r}; the trainer supports 'default' only", "")
    return float(rope["rope_theta"] if "rope_theta" in rope else config["rope_theta"])
