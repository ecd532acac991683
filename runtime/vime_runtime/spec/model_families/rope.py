"""The rotary embedding that a ``config.json`` asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vime_runtime.spec.errors import UsageError

# What transformers takes where config.json gives no base.
DEFAULT_BASE = 10_000.0

# Megatron-core has these constants of Llama 3.1's scaling in its code; only the factor is an argument.
LLAMA3 = {"original_max_position_embeddings": 8192, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


@dataclass(frozen=True)
class Rope:
    """The base of the frequencies, and the factor of Llama 3.1's scaling where there is one."""

    base: float
    factor: float | None = None


def read(config: dict[str, Any], where: str) -> Rope:
    """Read the rotary embedding. Before version 5, transformers wrote base and scaling apart from each other.

    Raises:
        UsageError: a scaling that Megatron-core does not have.
    """
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    base = float(rope.get("rope_theta") or config.get("rope_theta") or DEFAULT_BASE)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return Rope(base)
    if kind != "llama3":
        raise UsageError(
            f"{where}: rope type {kind!r}; the trainer supports 'default' and 'llama3' only",
            "choose a model with another rotary embedding",
        )
    for key, wanted in LLAMA3.items():
        if rope.get(key) != wanted:
            raise UsageError(
                f"{where}: {key} of the llama3 rope is {rope.get(key)!r}; supported is {wanted!r} only",
                "choose a model with the constants of Llama 3.1",
            )
    if not rope.get("factor"):
        raise UsageError(f"{where}: the llama3 rope lacks 'factor'", "take config.json from the original")
    return Rope(base, float(rope["factor"]))
