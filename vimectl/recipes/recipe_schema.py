"""The schema of a recipe as data: a JSON schema for editors, and the keys with type, default and description.

``python -m vimectl.recipes.recipe_schema FILE`` writes the JSON schema to a file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.recipe import REPLACED_KEYS, Recipe

# Next to every recipe that ships. The first line of a recipe names it, for Taplo and Even Better TOML.
SCHEMA_FILE = "recipe.schema.json"
# Stands for the name of an entry in a table of free names, such as ``[env]``.
FREE_NAME = "NAME"

_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


@dataclass(frozen=True)
class SchemaKey:
    """A key or table of a schema. ``default`` is None for a required key, a table, and without a default."""

    key: str
    type: str
    required: bool
    default: Any
    description: str
    is_table: bool

    @property
    def default_text(self) -> str:
        """The default, ``required``, or nothing."""
        if self.required:
            return "required"
        return "" if self.default is None else f"default {json.dumps(self.default)}"


class FoundKey(NamedTuple):
    """Where a key is in the data of a recipe, its name in ``all_keys``, and its JSON schema."""

    path: list[str]
    name: str
    node: dict[str, Any]


@cache
def json_schema() -> dict[str, Any]:
    """Return the JSON schema, draft 7, without references."""
    draft = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "vimectl recipe"}
    return draft | _schema_of(Recipe)


def all_keys(model: type[BaseModel] = Recipe) -> list[SchemaKey]:
    """Return every table of a file, followed by its keys, in the order of the schema."""
    return list(_walk(_schema_of(model), ""))


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema()
    definitions = schema.pop("$defs")
    return _simplified(schema, definitions)


def find_key(key: str) -> FoundKey:
    """Find a dotted key or table. A name in ``[env]`` or ``[data.settings]`` may contain dots.

    Raises:
        UsageError: there is no such key; the message suggests the nearest ones.
    """
    if key in REPLACED_KEYS:
        raise UsageError(f"{key}: this key does not exist any more", REPLACED_KEYS[key])
    parts, path, names = key.split("."), list[str](), list[str]()
    node = json_schema()
    while parts:
        entry, name = _free_entry(node), FREE_NAME
        if entry is None:
            name = parts[0]
            entry = node.get("properties", {}).get(name)
        elif not _is_table(entry):
            parts = [".".join(parts)]
        if entry is None or not parts[0]:
            raise unknown(
                "key", key, [one.key for one in all_keys()], hint="`vimectl recipe schema` lists all keys"
            )
        path.append(parts.pop(0))
        names.append(name)
        node = entry
    return FoundKey(path, ".".join(names), node)


def describe(key: str) -> list[SchemaKey]:
    """Return a key, or a table and its keys. Raises UsageError as ``find_key`` does."""
    name = find_key(key).name
    return [one for one in all_keys() if f"{one.key}.".startswith(f"{name}.")]


def _walk(table: dict[str, Any], name: str) -> Iterator[SchemaKey]:
    """Yield a table or an array of tables, its keys, then the tables in it."""
    if name:
        text = table.get("description", "")
        yield SchemaKey(name, _type_text(table), False, None, text, is_table=True)
    table = table.get("items", table)
    tables = []
    entry = _free_entry(table)
    entries = table.get("properties", {}) if entry is None else {FREE_NAME: entry}
    for key, node in entries.items():
        dotted = f"{name}.{key}" if name else key
        if _is_table(node.get("items", node)):
            tables.append((node, dotted))
        else:
            required = key in table.get("required", ())
            text = node.get("description", "")
            yield SchemaKey(dotted, _type_text(node), required, node.get("default"), text, is_table=False)
    for node, dotted in tables:
        yield from _walk(node, dotted)


def _is_table(node: dict[str, Any]) -> bool:
    return node.get("type") == "object"


def _free_entry(node: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of the entries of a table of free names; None for any other node."""
    if not _is_table(node) or "properties" in node:
        return None
    (entry,) = node.get("patternProperties", {"": node.get("additionalProperties")}).values()
    return entry if isinstance(entry, dict) else {}


def _type_text(node: dict[str, Any]) -> str:
    if "const" in node:
        return json.dumps(node["const"])
    if "enum" in node:
        return " or ".join(map(json.dumps, node["enum"]))
    if node.get("type") == "array":
        return f"array of {_type_text(node['items'])}"
    if _is_table(node):
        return "table"
    bounds = " and ".join(f"{sign} {node[name]}" for name, sign in _BOUNDS.items() if name in node)
    return f"{node.get('type', 'any')} {bounds}".rstrip()


def _simplified(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a part of pydantic's schema with references replaced, and without titles and null.

    TOML has no null. Editors show a description as Markdown.
    """
    if "$ref" in node:
        node = definitions[node["$ref"].rpartition("/")[2]] | {k: v for k, v in node.items() if k != "$ref"}
    if "anyOf" in node:
        (other,) = (one for one in node["anyOf"] if one.get("type") != "null")
        rest = {k: v for k, v in node.items() if k != "anyOf" and not (k == "default" and v is None)}
        return _simplified(other | rest, definitions)
    found: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "patternProperties"):
            found[key] = {name: _simplified(entry, definitions) for name, entry in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            found[key] = _simplified(value, definitions)
        elif key == "description":
            found[key] = " ".join(value.replace("``", "`").split())
        elif key != "title" and not (key == "default" and node.get("type") == "object"):
            found[key] = value
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8")
