"""Which recipes there are, and which one a name or a path means."""

from __future__ import annotations

from pathlib import Path

from vime_runtime.spec.errors import UsageError, unknown

from vimectl.util.resources import data_dir


def shipped() -> dict[str, Path]:
    """The recipes that come with vimectl, by name."""
    return {path.stem: path for path in sorted(data_dir("recipes").glob("*.toml"))}


def find(name_or_path: str) -> Path:
    """Return the file that is meant. What has a slash or ends in ``.toml`` is a path, all else a name.

    Raises:
        UsageError: there is no such file or no such name; the nearest names are given.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise UsageError(
                f"no recipe file at {path}", "give an existing file, or a name from `vimectl recipe list`"
            )
        return path
    recipes = shipped()
    if name_or_path not in recipes:
        raise unknown("recipe", name_or_path, recipes)
    return recipes[name_or_path]
