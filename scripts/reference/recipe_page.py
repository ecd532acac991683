"""The page of the keys of a recipe."""

from __future__ import annotations

from reference.key_list import key_sections
from vimectl.recipes.recipe_schema import all_keys

HEADER = """\
# Recipes

A recipe is a TOML file. `vimectl recipe copy NAME DIR` copies one to edit, `vimectl recipe validate FILE`
checks it, and `vimectl recipe schema KEY` prints what is below. `--set KEY=VALUE` of `vimectl run recipe`
overrides a key for one run. `NAME` in a key stands for a name that you choose. An unknown key or a value
of the wrong type is an error that names the key.

The first line of a recipe that ships, `#:schema ./recipe.schema.json`, lets an editor complete the keys.
"""


def render() -> str:
    """Return the text of the page."""
    return HEADER + key_sections(all_keys())
