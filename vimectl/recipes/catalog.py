"""Find recipes by name or path."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.spec.errors import UsageError, unknown

from vimectl.util.resources import data_dir


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship with vimectl, by name."""
    return {path.stem: path for path in sorted(data_dir("recipes").glob("*.toml"))}


def find_recipe(name_or_path: str) -> Path:
    """Return the recipe file. An argument with a slash or the suffix ``.toml`` is a path, any other a name.

    Raises:
        UsageError: there is no such file or name; the message suggests the nearest names.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise UsageError(
                f"no recipe file at {path}", "give an existing file, or a name from `vimectl recipe list`"
            )
        return path
    recipes = shipped_recipes()
    if name_or_path not in recipes:
        raise unknown("recipe", name_or_path, recipes)
    return recipes[name_or_path]
