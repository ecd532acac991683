"""Names that are not simulated are there, so that sources which mention them can be imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Name:
    """Something that can be named, looked into, and used as a decorator's argument, but not called."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Name(f"{self._path}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{self._path} is not simulated")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (object,)


class Module(ModuleType):
    """A module in which every name is there."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        return attribute(self.__name__, name)


def attribute(module: str, name: str) -> Any:
    """What ``module`` has by a name that is not simulated."""
    if name.startswith("__"):
        raise AttributeError(name)
    return sys.modules.get(f"{module}.{name}") or Name(f"{module}.{name}")


class _Finder(MetaPathFinder, Loader):
    def __init__(self, package: str) -> None:
        self._prefix = f"{package}."

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.startswith(self._prefix) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Module(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


def find_below(package: str) -> None:
    """Let every module below a package be found that is not there."""
    sys.meta_path.append(_Finder(package))
