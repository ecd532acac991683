"""``--set KEY=VALUE``: a value for one key of a recipe, read as TOML and typed by the schema."""

from __future__ import annotations

import copy
import types
import typing
from typing import Any

from pydantic import BaseModel
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.recipe import REPLACED_KEYS, Recipe

from vimectl.util.toml import parse_value


def apply(data: dict[str, Any], assignments: list[str]) -> dict[str, Any]:
    """Return a copy of a recipe's data with every ``KEY=VALUE`` in place. The values are not checked here.

    Raises:
        UsageError: an assignment without "=", or a key that the schema does not have.
    """
    data = copy.deepcopy(data)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set {assignment}: no '='", "write --set table.key=value")
        *tables, last = _split(key.strip())
        place = data
        for table in tables:
            place = place.setdefault(table, {})
        place[last] = _value(text.strip(), wants_text=_is_text(key.strip()))
    return data


def known_keys() -> dict[str, Any]:
    """Every dotted key of a recipe and its type. A table of free keys is listed as ``table.*``."""
    return dict(_walk(Recipe, ""))


def _split(key: str) -> list[str]:
    keys = known_keys()
    for free in (name[:-1] for name in keys if name.endswith(".*")):
        if key.startswith(free) and len(key) > len(free):
            return [*free.rstrip(".").split("."), key[len(free) :]]
    if key in REPLACED_KEYS:
        raise UsageError(f"--set {key}: the key does not exist any more", REPLACED_KEYS[key])
    if key not in keys or key.endswith(".*"):
        raise unknown("key", key, keys, hint="`vimectl recipe show NAME` prints a recipe with its keys")
    return key.split(".")


def _value(text: str, wants_text: bool) -> Any:
    try:
        value = parse_value(text)
    except ValueError:
        return text  # a bare string: nobody should have to quote twice for the shell
    return text if wants_text and not isinstance(value, str) else value


def _is_text(key: str) -> bool:
    annotation = known_keys().get(key, str if key.startswith("env.") else None)
    return str in _members(annotation)


def _walk(model: type[BaseModel], prefix: str) -> typing.Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        table = next((m for m in _members(field.annotation) if _is_table(m)), None)
        if table:
            yield from _walk(table, f"{prefix}{name}.")
        elif typing.get_origin(field.annotation) is dict:
            yield f"{prefix}{name}.*", field.annotation
        else:
            yield prefix + name, field.annotation


def _members(annotation: Any) -> tuple[Any, ...]:
    """The types that a union offers, or the one type there is."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
