"""Define every name that is not simulated, so that sources which mention it can be imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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

    def __getattr__(self, name: str) -> Any:
        return attribute(self.__name__, name)


def attribute(module: str, name: str) -> Any:
    """Return the attribute of ``module`` for a name that is not simulated."""
    if name.startswith("__"):
        raise AttributeError(name)
    return sys.modules.get(f"{module}.{name}") or Name(f"{module}.{name}")


class _Finder(MetaPathFinder, Loader):
    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        known = any(name == package or name.startswith(f"{package}.") for package in self._packages)
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Module(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def find(*packages: str) -> None:
    """Make packages that do not exist importable, with every module below them."""
    sys.meta_path.append(_Finder(packages))
