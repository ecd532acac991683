"""Which tensors a model of a known family consists of, from its ``config.json``."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from vimectl.errors import BadInput, unknown
from vimectl.toml import Strict, load

Shape = tuple[int, ...]


class Family(Strict):
    """One entry of ``families.toml``; dimensions are products of keys, say ``"heads * head_dim"``."""

    model_type: str
    supports: dict[str, str | bool | int]
    tensors: dict[str, list[str]]
    untied: dict[str, list[str]]

    def expected(self, config: dict[str, Any], where: str) -> dict[str, Shape]:
        """Name and shape of every tensor of the model that ``config`` describes.

        Raises:
            BadInput: ``config`` lacks a number, or describes a variant that is not supported.
        """
        for key, value in self.supports.items():
            if config.get(key, value) != value:
                raise BadInput(
                    f"{where}: {key} is {config[key]!r}; supported is {value!r} only",
                    "use a model without it",
                )
        layers = _number(config, "num_hidden_layers", where)
        tensors = self.tensors if config.get("tie_word_embeddings") else self.tensors | self.untied
        return {
            name.format(layer=layer): tuple(_size(dimension, config, where) for dimension in dimensions)
            for name, dimensions in tensors.items()
            for layer in range(layers if "{layer}" in name else 1)
        }


class FamilyFile(Strict):
    """The whole of ``families.toml``."""

    family: list[Family]


@lru_cache(maxsize=1)
def known() -> dict[str, Family]:
    """The families by ``model_type``."""
    file = load(FamilyFile, Path(__file__).with_name("families.toml"))
    return {family.model_type: family for family in file.family}


def family_of(config: dict[str, Any], where: str) -> Family:
    """The family that ``config.json`` names. Raises BadInput when it is not known."""
    model_type = config.get("model_type")
    if model_type not in known():
        raise unknown(
            f"model_type in {where}:",
            str(model_type),
            known(),
            hint=f"use a model of a supported family: {', '.join(known())}",
        )
    return known()[model_type]


def _size(dimension: str, config: dict[str, Any], where: str) -> int:
    return prod(_number(config, key.strip(), where) for key in dimension.split("*"))


def _number(config: dict[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or value <= 0:
        raise BadInput(
            f"{where}: {key} should be a positive number, found {value!r}",
            "save the model again with transformers, which writes every key",
        )
    return value
