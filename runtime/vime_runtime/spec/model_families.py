"""The model families that can be trained: how ``config.json`` reads, and which parameter holds which tensor.

A family maps every parameter of Megatron-core's GPTModel to the Hugging Face tensors it is made of. The
trainer loads and exports weights by this mapping; the tool knows from it which tensors a checkpoint must
contain. A new family is one entry of ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.model_shape import ModelShape, not_positive, read_rope, unsupported

# How a parameter's tensors are fused and sharded, see ``weight_sync.export``.
Layout = Literal["whole", "rows", "columns", "qkv"]

# The numbers that ``config.json`` must have; only mixtures of experts have those with a default.
_NUMBERS = tuple(number for number in fields(ModelShape) if number.type == "int")


@dataclass(frozen=True)
class ParamMapping:
    """One Megatron parameter and the Hugging Face tensors it is made of.

    Attributes:
        megatron: name in Megatron's model; ``{layer}`` is the index of the layer, ``{expert}`` that of the
            expert among those of its rank.
        layout: how the tensors are fused and sharded.
        hf: name of each tensor to its dimensions, as attributes of ModelShape.
        expert: index of the expert in the model, for a parameter of an expert.
    """

    megatron: str
    layout: Layout
    hf: dict[str, tuple[str, ...]]
    expert: int | None = None

    def at(self, layer: int, expert: int | None = None) -> ParamMapping:
        """Return this mapping for one layer and, for a parameter of an expert, for one expert."""
        return ParamMapping(
            self.megatron.replace("{layer}", str(layer)),
            self.layout,
            {name.format(layer=layer, expert=expert): dims for name, dims in self.hf.items()},
            expert,
        )

    def parameter(self, local_experts: range) -> str | None:
        """Return the parameter's name on a rank with these experts; None if another rank has it."""
        if self.expert is None:
            return self.megatron
        if self.expert not in local_experts:
            return None
        return self.megatron.replace("{expert}", str(local_experts.index(self.expert)))


@dataclass(frozen=True)
class ModelFamily:
    """A model family.

    Attributes:
        model_type: ``model_type`` in ``config.json``.
        mappings: every parameter.
        required: values that ``config.json`` must have where it has the key.
        aliases: keys that stand in for a missing one, as transformers reads them; ``head_dim`` falls back to
            hidden_size / num_attention_heads where the family says so.
    """

    model_type: str
    mappings: tuple[ParamMapping, ...]
    required: dict[str, Any]
    aliases: dict[str, str] = field(default_factory=dict)
    default_head_dim: bool = False

    @property
    def qk_layernorm(self) -> bool:
        """True if queries and keys are normalized per head."""
        return self._has("q_layernorm.weight")

    @property
    def qkv_bias(self) -> bool:
        """True if the query, key and value projections have biases."""
        return self._has("linear_qkv.bias")

    @property
    def has_experts(self) -> bool:
        """True if every layer is a mixture of experts."""
        return self._has("router.weight")

    def shape(self, config: dict[str, Any], where: str) -> ModelShape:
        """Read ``config.json``. Raises UsageError for a missing number or an unsupported variant."""
        for key, value in self.required.items():
            if config.get(key, value) != value:
                raise unsupported(where, key, config[key], [value])
        rope = read_rope(config, where)
        if not config.get("rms_norm_eps"):
            raise not_positive(where, "rms_norm_eps", config.get("rms_norm_eps"))
        keys = [number.name for number in _NUMBERS if self.has_experts or number.default is MISSING]
        return ModelShape(
            model_type=self.model_type,
            **{key: self._number(key, config, where) for key in keys},
            rms_norm_eps=config["rms_norm_eps"],
            rope=rope,
            # The defaults of transformers in every family here.
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            norm_topk_prob=self.has_experts and config.get("norm_topk_prob", False),
        )

    def parameters(self, shape: ModelShape) -> Iterator[ParamMapping]:
        """Yield every parameter of a model of this shape, those of the layers last."""
        for mapping in self.mappings:
            tied = shape.tie_word_embeddings and mapping.megatron == "output_layer.weight"
            if "{layer}" not in mapping.megatron and not tied:
                yield mapping
        layer_mappings = [mapping for mapping in self.mappings if "{layer}" in mapping.megatron]
        expert_mappings = [mapping for mapping in layer_mappings if "{expert}" in mapping.megatron]
        for layer in range(shape.num_hidden_layers):
            yield from (mapping.at(layer) for mapping in layer_mappings if mapping not in expert_mappings)
            for expert in range(shape.num_experts):
                yield from (mapping.at(layer, expert) for mapping in expert_mappings)

    def tensors(self, shape: ModelShape) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every Hugging Face tensor."""
        return {
            name: tuple(getattr(shape, dim) for dim in dims)
            for mapping in self.parameters(shape)
            for name, dims in mapping.hf.items()
        }

    def _number(self, key: str, config: dict[str, Any], where: str) -> int:
        value = config.get(key)
        if value is None and key in self.aliases:
            value = config.get(self.aliases[key])
        if value is None and key == "head_dim" and self.default_head_dim:
            hidden = self._number("hidden_size", config, where)
            heads = self._number("num_attention_heads", config, where)
            if hidden % heads:
                raise UsageError(
                    f"{where}: hidden_size / num_attention_heads should be a whole number, "
                    f"found {hidden} / {heads}",
                    "correct config.json",
                )
            value = hidden // heads
        if not isinstance(value, int) or value <= 0:
            raise not_positive(where, key, value)
        return value

    def _has(self, parameter: str) -> bool:
        return any(mapping.megatron.endswith(parameter) for mapping in self.mappings)


def family_of(config: dict[str, Any], where: str) -> ModelFamily:
    """Return the family of a ``config.json``. Raises UsageError if its model type is unknown."""
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise unknown(
            f"model_type in {where}:",
            str(model_type),
            FAMILIES,
            hint=f"use a model of a supported family: {', '.join(FAMILIES)}",
        )
    return FAMILIES[model_type]


def _layer(megatron: str, layout: Layout, hf: dict[str, tuple[str, ...]]) -> ParamMapping:
    """Return the mapping of a parameter that every layer has. Names are those below the layer."""
    tensors = {f"model.layers.{{layer}}.{name}": dims for name, dims in hf.items()}
    return ParamMapping(f"decoder.layers.{{layer}}.{megatron}", layout, tensors)


_ATTENTION = (
    ParamMapping(
        "embedding.word_embeddings.weight",
        "rows",
        {"model.embed_tokens.weight": ("vocab_size", "hidden_size")},
    ),
    ParamMapping("decoder.final_layernorm.weight", "whole", {"model.norm.weight": ("hidden_size",)}),
    ParamMapping("output_layer.weight", "rows", {"lm_head.weight": ("vocab_size", "hidden_size")}),
    _layer("input_layernorm.weight", "whole", {"input_layernorm.weight": ("hidden_size",)}),
    _layer(
        "self_attention.linear_qkv.weight",
        "qkv",
        {
            "self_attn.q_proj.weight": ("query_size", "hidden_size"),
            "self_attn.k_proj.weight": ("key_value_size", "hidden_size"),
            "self_attn.v_proj.weight": ("key_value_size", "hidden_size"),
        },
    ),
    _layer(
        "self_attention.linear_proj.weight",
        "columns",
        {"self_attn.o_proj.weight": ("hidden_size", "query_size")},
    ),
    _layer("pre_mlp_layernorm.weight", "whole", {"post_attention_layernorm.weight": ("hidden_size",)}),
)


def _mlp(megatron: str, hf: str, columns: str) -> tuple[ParamMapping, ParamMapping]:
    """Return the mappings of a gated MLP whose parameters have these prefixes."""
    gate_and_up: dict[str, tuple[str, ...]] = {
        f"{hf}.gate_proj.weight": (columns, "hidden_size"),
        f"{hf}.up_proj.weight": (columns, "hidden_size"),
    }
    down: dict[str, tuple[str, ...]] = {f"{hf}.down_proj.weight": ("hidden_size", columns)}
    return (
        _layer(f"{megatron}.linear_fc1.weight", "rows", gate_and_up),
        _layer(f"{megatron}.linear_fc2.weight", "columns", down),
    )


_DENSE_MLP = _mlp("mlp", "mlp", "intermediate_size")

_EXPERTS_MLP = (
    _layer("mlp.router.weight", "whole", {"mlp.gate.weight": ("num_experts", "hidden_size")}),
    *_mlp("mlp.experts.local_experts.{expert}", "mlp.experts.{expert}", "moe_intermediate_size"),
)

# Norms and biases of a family precede _ATTENTION: vLLM keeps back what it has of a module until all of it is
# there, so a bias should travel close to the weights of its module.
_QK_NORMS = (
    _layer("self_attention.q_layernorm.weight", "whole", {"self_attn.q_norm.weight": ("head_dim",)}),
    _layer("self_attention.k_layernorm.weight", "whole", {"self_attn.k_norm.weight": ("head_dim",)}),
)

_QKV_BIASES = (
    _layer(
        "self_attention.linear_qkv.bias",
        "qkv",
        {
            "self_attn.q_proj.bias": ("query_size",),
            "self_attn.k_proj.bias": ("key_value_size",),
            "self_attn.v_proj.bias": ("key_value_size",),
        },
    ),
)

FAMILIES = {
    family.model_type: family
    for family in (
        ModelFamily(  # Llama 1 to 3, and models of the same architecture such as SmolLM2
            model_type="llama",
            mappings=(*_ATTENTION, *_DENSE_MLP),
            required={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
            aliases={"num_key_value_heads": "num_attention_heads"},
            default_head_dim=True,
        ),
        ModelFamily(  # Qwen2 and Qwen2.5
            model_type="qwen2",
            mappings=(*_QKV_BIASES, *_ATTENTION, *_DENSE_MLP),
            required={"hidden_act": "silu", "use_sliding_window": False},
            default_head_dim=True,
        ),
        ModelFamily(
            model_type="qwen3",
            mappings=(*_QK_NORMS, *_ATTENTION, *_DENSE_MLP),
            required={"hidden_act": "silu", "attention_bias": False, "use_sliding_window": False},
        ),
        ModelFamily(
            model_type="qwen3_moe",
            mappings=(*_QK_NORMS, *_ATTENTION, *_EXPERTS_MLP),
            required={
                "hidden_act": "silu",
                "attention_bias": False,
                "use_sliding_window": False,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
            },
            aliases={"num_experts": "num_local_experts"},  # the key's name since transformers 5
        ),
    )
}
