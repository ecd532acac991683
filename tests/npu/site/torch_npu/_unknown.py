"""Define every name that is not simulated, so that sources which mention it can be imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Called while a worker of vllm-ascend starts, only for their effect on the device.
PREPARATIONS = {
    "torch_npu.op_plugin.atb._atb_ops._register_atb_extensions",
    "torch_npu._npu_matmul_add_fp32",
}


class Name:
    """An object that has every attribute and can be a decorator's argument, but cannot be called."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Name(f"{self._path}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._path in PREPARATIONS:
            return None
        raise NotImplementedError(f"{self._path} is not simulated")

    def __or__(self, other: Any) -> Any:
        return Any  # in an annotation

    __ror__ = __or__

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)


class Module(ModuleType):
    """A module that has every name."""

    __path__: Sequence[str] = ()
    __device_type__ = "A2"  # of vllm_ascend._build_info
    __version__ = "1.15.0"  # of scipy; numba asks

    def __getattr__(self, name: str) -> Any:
        return attribute(self.__name__, name)


def attribute(module: str, name: str) -> Any:
    """Return the attribute of ``module`` for a name that is not simulated."""
    if name.startswith("__"):
        raise AttributeError(name)
    return sys.modules.get(f"{module}.{name}") or Name(f"{module}.{name}")


class _Finder(MetaPathFinder, Loader):
    """Find modules, and every module below them: the one that replaces it, or one that has every name."""

    def __init__(self, modules: Mapping[str, str | None]) -> None:
        self._modules = modules

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        known = any(name == module or name.startswith(f"{module}.") for module in self._modules)
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        replacement = self._modules.get(spec.name)
        return importlib.import_module(replacement) if replacement else Module(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def find(missing: Sequence[str], instead: Mapping[str, str | None]) -> None:
    """Provide modules where there are none, and instead of those that exist."""
    sys.meta_path.insert(0, _Finder(instead))
    sys.meta_path.append(_Finder(dict.fromkeys(missing)))
