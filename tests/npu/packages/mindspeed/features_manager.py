"""The features that MindSpeed's adaptor applies, of which a process may leave out some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True)
class Feature:
    """One feature: functions to call before and after the import of Megatron-core (feature.py:47,51)."""

    feature_name: str
    before_megatron: Callable[[], None] = _nothing
    after_megatron: Callable[[], None] = _nothing


def _requirements() -> None:
    from mindspeed import requirements_basic

    requirements_basic.apply()


def _megatron() -> None:
    from mindspeed import megatron_basic

    megatron_basic.apply()


def _profiler() -> None:
    from mindspeed import profiler_default

    profiler_default.apply()


def _sparse_attention() -> None:
    """Import what the package of Megatron-core lacks."""
    # core/transformer/experimental_attention_variant/dsa_fused.py:16
    import megatron.training  # noqa: F401


class MindSpeedFeaturesManager:
    """The list, whose default features_manager/__init__.py:261 sets. Read: those of level 0 that are met."""

    FEATURES_LIST: ClassVar = [
        Feature("requirements_basic", before_megatron=_requirements),
        Feature("megatron_basic", after_megatron=_megatron),
        Feature("use_fused_rotary_pos_emb"),
        Feature("profiler_default", after_megatron=_profiler),
        Feature("dsa", after_megatron=_sparse_attention),
    ]

    @classmethod
    def set_features_list(cls, features: list[Feature]) -> None:
        """Replace the list in place: features_manager/features_manager.py:10."""
        cls.FEATURES_LIST[:] = features
