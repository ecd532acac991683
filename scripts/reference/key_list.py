"""Write the keys of a schema as Markdown."""

from __future__ import annotations

import json
import re

from reference.markdown import code, entry, prose
from vimectl.recipes.recipe_schema import SchemaKey


def key_sections(keys: list[SchemaKey]) -> str:
    """Return the keys outside tables, then a section for each table with an entry for each key."""
    names = {one.key for one in keys if not one.is_table and "." in one.key}
    return "\n".join(_table(one) if one.is_table else _key(one, names - {one.key}) for one in keys)


def _table(one: SchemaKey) -> str:
    title = f"[[{one.key}]]" if one.type.startswith("array") else f"[{one.key}]"
    meaning = re.sub(r"^`\[.*?\]`: (\w)", lambda found: found[1].upper(), one.description)
    return f"\n## {prose(title)} {{ #{one.key} }}\n\n{prose(meaning)}\n"


def _key(one: SchemaKey, names: set[str]) -> str:
    has_default = one.default not in (None, "", [])
    default = f"default {code(json.dumps(one.default))}" if has_default else ""
    facts = ", ".join(filter(None, [prose(one.type), "required" if one.required else default]))
    return entry(one.key, [_with_links(one.description, names), f"{facts}\n    {{: .facts }}"])


def _with_links(text: str, names: set[str]) -> str:
    """Return a description in which the names of other keys are links to them."""
    listed = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    parts = re.split(rf"(?<![\w.`])({listed})(?![\w`])", text) if names else [text]
    return "".join(
        f"[{code(part)}](#{part})" if number % 2 else _spaced(part) for number, part in enumerate(parts)
    )


def _spaced(text: str) -> str:
    """Return a part of a text as Markdown with the spaces at its ends."""
    inner = prose(text)
    return f"{' ' * text[:1].isspace()}{inner}{' ' * text[-1:].isspace()}" if inner else text
