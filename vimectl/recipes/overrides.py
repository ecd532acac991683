"""Apply ``--set KEY=VALUE`` to the data of a recipe. Values are read as TOML and typed by the schema."""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.recipe import REPLACED_KEYS, Recipe

from vimectl.util.toml import parse_value


def apply(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return a copy of a recipe's data with every ``KEY=VALUE`` applied. The values are not validated here.

    Raises:
        UsageError: an assignment without "=", or an unknown key.
    """
    data = copy.deepcopy(data)
    # Every dotted key of a recipe with its type. A table of free keys is listed as ``table.*``.
    keys = dict(_walk(Recipe, ""))
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise UsageError(f"--set {assignment}: no '='", "write --set table.key=value")
        *tables, last = _path_of(key, keys)
        table = data
        for name in tables:
            table = table.setdefault(name, {})
        table[last] = _parse(text, is_text=str in _members(keys.get(key)) or key.startswith("env."))
    return data


def _path_of(key: str, keys: dict[str, Any]) -> list[str]:
    """Return the tables and the last part of a dotted key; the key of a free table may contain dots."""
    for free in (name[:-1] for name in keys if name.endswith(".*")):
        if key.startswith(free) and len(key) > len(free):
            return [*free.rstrip(".").split("."), key[len(free) :]]
    if key in REPLACED_KEYS:
        raise UsageError(f"--set {key}: this key does not exist any more", REPLACED_KEYS[key])
    if key not in keys or key.endswith(".*"):
        raise unknown("key", key, keys, hint="`vimectl recipe show NAME` prints a recipe with its keys")
    return key.split(".")


def _parse(text: str, is_text: bool) -> Any:
    try:
        value = parse_value(text)
    except ValueError:
        return text  # a bare string: users should not have to quote twice for the shell
    return text if is_text and not isinstance(value, str) else value


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        members = _members(field.annotation)
        table = next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if table:
            yield from _walk(table, f"{prefix}{name}.")
        elif typing.get_origin(field.annotation) is dict:
            yield f"{prefix}{name}.*", field.annotation
        else:
            yield prefix + name, field.annotation


def _members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
