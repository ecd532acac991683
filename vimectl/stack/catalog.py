"""The stacks that this vimectl knows: one TOML file each, and a lock for those it can install."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vimectl.errors import unknown

if TYPE_CHECKING:
    from vimectl.stack.schema import Stack

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the known stacks, sorted."""
    return sorted(path.stem for path in (_HERE / "data").glob("*.toml"))


@cache
def load(name: str) -> Stack:
    """Return the stack called ``name``. Raises BadInput when there is none."""
    # Imported here: see ``outline``.
    from vimectl import toml
    from vimectl.stack.schema import Stack

    return toml.load(Stack, path(name))


def path(name: str) -> Path:
    """Return the file of the stack called ``name``. Raises BadInput when there is none."""
    if name not in names():
        raise unknown("stack", name, names())
    return _HERE / "data" / f"{name}.toml"


def lock_path(name: str) -> Path | None:
    """Return the stack's lock (requirements format, every file hashed), or None when it has none."""
    path = _HERE / "locks" / f"{name}.txt"
    return path if path.is_file() else None
