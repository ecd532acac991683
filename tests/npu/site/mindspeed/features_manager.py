"""Simulate MindSpeed's list of features, of which a process may omit some."""

from __future__ import annotations

from types import SimpleNamespace
from typing import ClassVar

NAMES = ("megatron_basic", "use_fused_rotary_pos_emb", "dsa")


class MindSpeedFeaturesManager:
    """The features that the adaptor applies."""

    FEATURES_LIST: ClassVar = [SimpleNamespace(feature_name=name) for name in NAMES]

    @classmethod
    def set_features_list(cls, features: list[SimpleNamespace]) -> None:
        """Replace the list."""
        cls.FEATURES_LIST[:] = features
