"""What is needed of a stack file to find packages: read without the schema, which takes longer to start than
`patch status` takes. Stack files are checked when vimectl is tested, and when ``catalog.load`` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from vimectl.stacks.catalog import path
from vimectl.util.toml_file import read_toml


@dataclass(frozen=True)
class Outline:
    """Some tables of a stack; see ``schema.Stack`` for what they say."""

    name: str
    packages: dict[str, str]
    ranges: dict[str, str]
    provided_by: dict[str, list[str]]
    patches: dict[str, str]

    def distributions(self, package: str) -> list[str]:
        """Return the distribution names that may provide ``package``, the preferred one first."""
        return self.provided_by.get(package, [package])


@cache
def load(name: str) -> Outline:
    """Return the outline of the stack called ``name``. Raises UsageError when there is none."""
    data = read_toml(path(name))
    tables = (data.get(table, {}) for table in ("packages", "ranges", "provided_by", "patches"))
    return Outline(name, *tables)
