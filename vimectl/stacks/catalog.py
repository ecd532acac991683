"""The stacks that this vimectl knows: one TOML file each, and a lock for those it can install.

Where a stack is named, the path of a file (``DIR/own.toml``) may stand instead: a stack of one's own.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.spec.errors import UsageError, unknown

if TYPE_CHECKING:
    from vimectl.stacks.schema import Stack

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Return the names of the known stacks, sorted."""
    return sorted(path.stem for path in (_HERE / "data").glob("*.toml"))


@cache
def load(name: str) -> Stack:
    """Return the stack called ``name``. Raises UsageError when there is none."""
    # Imported here: see ``outline``.
    from vimectl.stacks.schema import Stack
    from vimectl.util import toml

    return toml.load(Stack, path(name))


def path(name: str) -> Path:
    """Return the file of the stack called ``name``. Raises UsageError when there is none."""
    if is_file(name):
        if not Path(name).is_file():
            raise UsageError(
                f"{name}: no such file", f"name a stack ({', '.join(names())}) or the file of one"
            )
        return Path(name).absolute()
    if name not in names():
        raise unknown("stack", name, names())
    return _HERE / "data" / f"{name}.toml"


def lock_path(name: str) -> Path | None:
    """Return the stack's lock (requirements format, every file hashed), or None when it has none."""
    path = _HERE / "locks" / f"{name}.txt"
    return path if path.is_file() else None


def is_file(name: str) -> bool:
    """Whether what was given for a stack is the path of a file rather than a name."""
    return name.endswith(".toml")
