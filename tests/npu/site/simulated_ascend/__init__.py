"""Simulate the parts of vllm-ascend that are compiled, generated, or compute on the device.

Everything else of vllm-ascend is the released one. ``torch_npu`` puts them in their places.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# The name of each module, and the module of this package that replaces it.
PLACES = {
    "vllm_ascend.vllm_ascend_C": "camem",
    "vllm_ascend.worker.model_runner_v1": "model_runner",
}
# Imported by vllm-ascend, or a model that it patches, at module level, and never called here.
MISSING = ("torchvision",)


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in PLACES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return importlib.import_module(f"{__name__}.{PLACES[spec.name]}")

    def exec_module(self, module: ModuleType) -> None: ...


def install() -> None:
    """Make them importable, whether the release has such a file or not."""
    sys.meta_path.insert(0, _Finder())
