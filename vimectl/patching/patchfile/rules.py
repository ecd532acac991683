"""The rules that a patch file can break; ``rules.toml`` lists them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from vimectl import toml

Severity = Literal["error", "warning"]


class Rule(toml.Strict):
    severity: Severity
    meaning: str


@cache
def known() -> dict[str, Rule]:
    """Return every rule by name, in the order in which they are explained."""
    path = Path(__file__).with_name("rules.toml")
    return {
        name: toml.validate(Rule, table, f"{path}: {name}") for name, table in toml.read_toml(path).items()
    }


def is_error(rule: str) -> bool:
    return known()[rule].severity == "error"
