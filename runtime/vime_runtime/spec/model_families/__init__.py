"""The model families that can be trained. A new family is one file of data here and one line below."""

from __future__ import annotations

from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.model_families.base import Family
from vime_runtime.spec.model_families.llama import LLAMA
from vime_runtime.spec.model_families.qwen2 import QWEN2
from vime_runtime.spec.model_families.qwen3 import QWEN3
from vime_runtime.spec.model_families.qwen3_moe import QWEN3_MOE

FAMILIES = {family.model_type: family for family in (LLAMA, QWEN2, QWEN3, QWEN3_MOE)}


def get(config: dict[str, Any], where: str) -> Family:
    """The family of a Hugging Face ``config.json``. Raises UsageError when its model type is not known."""
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise UsageError(
            f"{where}: model_type is {model_type!r}; the trainer knows {', '.join(sorted(FAMILIES))}",
            "choose a model of a known family",
        )
    return FAMILIES[model_type]
