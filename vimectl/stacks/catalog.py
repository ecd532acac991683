"""The stacks that ship with vimectl: one TOML file each, and a lock for those that it can install.

Wherever a stack is named, the path of a TOML file (``DIR/mine.toml``) is accepted too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.spec.errors import UsageError, unknown

from vimectl.util import toml

if TYPE_CHECKING:
    from vimectl.stacks.schema import Stack

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class StackSummary:
    """The tables of a stack that say which packages it has; see ``schema.Stack`` for their meaning.

    Reading them needs no schema, whose import takes longer than `vimectl patch status`. ``load_stack`` checks
    stack files; so do the tests.
    """

    name: str
    packages: dict[str, str]
    ranges: dict[str, str]
    provided_by: dict[str, list[str]]
    patches: dict[str, str]

    def distributions(self, package: str) -> list[str]:
        """Return the distribution names that may provide ``package``, the preferred one first."""
        return self.provided_by.get(package, [package])


def stack_names() -> list[str]:
    """Return the names of the shipped stacks, sorted."""
    return sorted(path.stem for path in (_HERE / "data").glob("*.toml"))


@cache
def load_stack(name: str) -> Stack:
    """Return the stack called ``name``, checked. Raises UsageError when it is unknown or invalid."""
    from vimectl.stacks.schema import Stack  # slow to import: see ``StackSummary``

    return toml.load(Stack, stack_file(name))


@cache
def load_summary(name: str) -> StackSummary:
    """Return the package tables of the stack called ``name``. Raises UsageError when it is unknown."""
    data = toml.read_toml(stack_file(name))
    tables = (data.get(table, {}) for table in ("packages", "ranges", "provided_by", "patches"))
    return StackSummary(name, *tables)


def stack_file(name: str) -> Path:
    """Return the TOML file of the stack called ``name``. Raises UsageError when there is none."""
    if is_stack_path(name):
        if not Path(name).is_file():
            raise UsageError(
                f"{name}: no such file", f"name a stack ({', '.join(stack_names())}) or the file of one"
            )
        return Path(name).absolute()
    if name not in stack_names():
        raise unknown("stack", name, stack_names())
    return _HERE / "data" / f"{name}.toml"


def lock_path(name: str) -> Path | None:
    """Return the lock of a shipped stack (requirements format, every file hashed), or None."""
    path = _HERE / "locks" / f"{name}.txt"
    return path if path.is_file() else None


def is_stack_path(name: str) -> bool:
    """Return True when the argument for a stack is a path rather than a name."""
    return name.endswith(".toml")
