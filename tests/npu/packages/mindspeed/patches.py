"""Replace functions of loaded modules."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def replace(owner: Any, name: str, new: Any) -> None:
    """Replace an attribute, also in modules that have imported it by name: patch_utils.py:122-130."""
    old = getattr(owner, name)
    setattr(owner, name, new)
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType) and vars(module).get(name) is old:
            setattr(module, name, new)


def invent(path: str, **attributes: Any) -> None:
    """Put a module of a package that is not installed in place: patch_utils.py:135."""
    parent, _, name = path.rpartition(".")
    if parent and parent not in sys.modules:
        invent(parent)
    if path not in sys.modules:
        sys.modules[path] = ModuleType(path)
        if parent:
            setattr(sys.modules[parent], name, sys.modules[path])
    vars(sys.modules[path]).update(attributes)
