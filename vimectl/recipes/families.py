"""Which tensors a model of a known family consists of, from its ``config.json``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.strict import Strict

from vimectl.util.toml import load

Shape = tuple[int, ...]


class Family(Strict):
    """A table of ``families.toml``; a dimension is a formula over keys, say ``"heads * head_dim"``."""

    mlp: Literal["dense", "experts"] = "dense"
    needs: list[str] = Field(default_factory=list)
    supports: dict[str, str | bool | int | list[int]] = Field(default_factory=dict)
    defaults: dict[str, str] = Field(default_factory=dict)
    tensors: dict[str, list[str]] = Field(default_factory=dict)
    untied: dict[str, list[str]] = Field(default_factory=dict)

    def added_to(self, base: Family) -> Family:
        """What ``base`` has and what this one has."""
        return Family(
            mlp=self.mlp,
            needs=base.needs + self.needs,
            supports=base.supports | self.supports,
            defaults=base.defaults | self.defaults,
            tensors=base.tensors | self.tensors,
            untied=base.untied | self.untied,
        )

    def completed(self, config: dict[str, Any], where: str) -> dict[str, Any]:
        """``config`` with the numbers that it leaves to the family.

        Raises:
            UsageError: ``config`` lacks a number, or describes a variant that is not supported.
        """
        for key, value in self.supports.items():
            if config.get(key, value) != value:
                raise _unsupported(where, key, config[key], [value])
        _check_rope(config, where)
        for key in self.needs:
            if config.get(key) is None:
                raise _no_number(where, key, None)
        absent = [key for key in self.defaults if config.get(key) is None]
        return config | {key: _size(self.defaults[key], config, where) for key in absent}

    def expected(self, config: dict[str, Any], where: str) -> dict[str, Shape]:
        """Name and shape of every tensor of the model that ``config`` describes. See ``completed``."""
        config = self.completed(config, where)
        layers = _number(config, "num_hidden_layers", where)
        tensors = self.tensors if config.get("tie_word_embeddings") else self.tensors | self.untied
        experts = _number(config, "num_experts", where) if self.mlp == "experts" else 0
        return {
            name.format(layer=layer, expert=expert): shape
            for name, dimensions in tensors.items()
            for shape in [tuple(_size(dimension, config, where) for dimension in dimensions)]
            for layer in range(layers if "{layer}" in name else 1)
            for expert in range(experts if "{expert}" in name else 1)
        }


class Rope(Strict):
    """A kind of rotary embedding: the numbers that must be there, and those that must be these."""

    needs: list[str] = Field(default_factory=list)
    constants: dict[str, int] = Field(default_factory=dict)


class FamilyFile(Strict):
    """The whole of ``families.toml``."""

    decoder: Family
    dense: Family
    experts: Family
    rope: dict[str, Rope]
    family: dict[str, Family]


@lru_cache(maxsize=1)
def _file() -> FamilyFile:
    return load(FamilyFile, Path(__file__).with_name("families.toml"))


@lru_cache(maxsize=1)
def known() -> dict[str, Family]:
    """The families by ``model_type``."""
    mlps = {"dense": _file().dense, "experts": _file().experts}
    return {
        model_type: family.added_to(mlps[family.mlp].added_to(_file().decoder))
        for model_type, family in _file().family.items()
    }


def family_of(config: dict[str, Any], where: str) -> Family:
    """The family that ``config.json`` names. Raises UsageError when it is not known."""
    model_type = config.get("model_type")
    if model_type not in known():
        raise unknown(
            f"model_type in {where}:",
            str(model_type),
            known(),
            hint=f"use a model of a supported family: {', '.join(known())}",
        )
    return known()[model_type]


def has_experts(config: dict[str, Any]) -> bool:
    """Whether the layers of a model of a known family choose among experts."""
    return known()[config["model_type"]].mlp == "experts"


def _check_rope(config: dict[str, Any], where: str) -> None:
    """The rotary embedding is of a known kind; before version 5, transformers called it ``rope_scaling``."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in _file().rope:
        raise _unsupported(where, "rope_type", kind, list(_file().rope))
    for key in _file().rope[kind].needs:
        if not rope.get(key):
            raise _no_number(where, f"{key} of the {kind} rope", rope.get(key))
    for key, value in _file().rope[kind].constants.items():
        if rope.get(key) != value:
            raise _unsupported(where, f"{key} of the {kind} rope", rope.get(key), [value])


def _unsupported(where: str, key: str, found: Any, supported: list[Any]) -> UsageError:
    these = " and ".join(repr(value) for value in supported)
    return UsageError(
        f"{where}: {key} is {found!r}; supported {'are' if len(supported) > 1 else 'is'} {these} only",
        "use a model without it",
    )


def _no_number(where: str, key: str, found: Any) -> UsageError:
    return UsageError(
        f"{where}: {key} should be a positive number, found {found!r}",
        "save the model again with transformers, which writes every key",
    )


def _size(formula: str, config: dict[str, Any], where: str) -> int:
    """The value of ``"a * b / c"``, from left to right; a division must come out even."""
    first, *rest = formula.split()
    size = _number(config, first, where)
    for operator, key in zip(rest[::2], rest[1::2], strict=True):
        number = _number(config, key, where)
        if operator == "/" and size % number:
            raise UsageError(
                f"{where}: {formula} should be a whole number, found {size} / {number}", "correct config.json"
            )
        size = size // number if operator == "/" else size * number
    return size


def _number(config: dict[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise _no_number(where, key, value)
    return value
