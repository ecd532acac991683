"""Apply ``--set KEY=VALUE`` to the data of a recipe. Values are read as TOML and typed by the schema."""

from __future__ import annotations

import copy
import json
import shlex
from typing import Any

from vime_runtime.spec.errors import UsageError, unknown

from vimectl.recipes import recipe_schema
from vimectl.util.toml import parse_value


def apply(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return a copy of a recipe's data with every ``KEY=VALUE`` applied. The values are not validated here.

    Raises:
        UsageError: an assignment without "=", an unknown key, or a single value for a list.
    """
    data = copy.deepcopy(data)
    for assignment in assignments:
        if not assignment.isascii() and assignment.encode(errors="replace").decode() != assignment:
            raise UsageError(f"--set {assignment}: not UTF-8", "write the value in UTF-8")
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise UsageError(f"--set {assignment}: no '='", "write --set table.key=value")
        found = recipe_schema.find_key(key)
        kind = found.node.get("type")
        if kind == "object":
            raise _is_a_table(key, found.name)
        value = _parse(text, is_text=kind == "string")
        if kind == "array" and not isinstance(value, list):
            raise UsageError(f"--set {assignment}: {key} is a list", f"write {_as_list(key, text)}")
        *tables, last = found.path
        table = data
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = value
    return data


def _parse(text: str, is_text: bool) -> Any:
    try:
        value = parse_value(text)
    except ValueError:
        return text  # a bare string: users should not have to quote twice for the shell
    return text if is_text and not isinstance(value, str) else value


def _is_a_table(key: str, name: str) -> UsageError:
    known = [one.key for one in recipe_schema.describe(key) if not one.is_table and one.key != name]
    return unknown("key", key, known, hint=f"it is a table; `vimectl recipe schema {key}` lists its keys")


def _as_list(key: str, text: str) -> str:
    """Return the assignment with a list of texts, quoted for the shell, which removed quotes in ``text``."""
    texts = [part.strip(" \"'") for part in text.strip("[]").split(",")]
    return "--set " + shlex.quote(f"{key}={json.dumps(texts)}")
