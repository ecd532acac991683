"""The rules that a patch file can break; ``rules.toml`` lists them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from vimectl.util.toml import read_toml

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    severity: Severity
    meaning: str


@cache
def known() -> dict[str, Rule]:
    """Return every rule by name, in the order in which they are explained."""
    # Every apply reads patches: without the schema, which takes longer to start than reading them does.
    tables = read_toml(Path(__file__).with_name("rules.toml"))
    return {name: Rule(**table) for name, table in tables.items()}


def is_error(rule: str) -> bool:
    return known()[rule].severity == "error"
