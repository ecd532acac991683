"""`vimectl recipe`: list, show, copy and validate recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from vime_runtime.spec.errors import UsageError

from vimectl.recipes.catalog import find_recipe, shipped_recipes
from vimectl.util.console import JsonOption, emit_json, out, table

app = typer.Typer(no_args_is_help=True, help="List, show, copy and validate recipes.")


@app.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes that ship with vimectl."""
    from vimectl.recipes.resolve import load_recipe

    recipes = {name: load_recipe(path) for name, path in shipped_recipes().items()}
    if as_json:
        emit_json(
            "recipe.list",
            True,
            recipes=[{**r.recipe.model_dump(), "device": r.cluster.device} for r in recipes.values()],
        )
        return
    table(
        "",
        ["recipe", "stack", "devices", "description"],
        [
            [name, r.recipe.stack, f"{r.cluster.devices} {r.cluster.device}", r.recipe.description]
            for name, r in recipes.items()
        ],
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe's name or path.")], as_json: JsonOption = False
) -> None:
    """Print a recipe."""
    from vimectl.recipes.resolve import load_recipe

    path = find_recipe(name)
    recipe = load_recipe(path)
    if as_json:
        emit_json("recipe.show", True, path=path, recipe=recipe.model_dump(mode="json"))
        return
    out.print(path.read_text(encoding="utf-8"), markup=False, end="")


@app.command()
def validate(
    path: Annotated[str, typer.Argument(help="A recipe's path or name.")], as_json: JsonOption = False
) -> None:
    """Check every key of a recipe against the schema."""
    from vimectl.recipes.resolve import load_recipe

    found = find_recipe(path)
    recipe = load_recipe(found)
    if as_json:
        emit_json("recipe.validate", True, path=found, name=recipe.recipe.name)
        return
    out.print(f"{found}: a valid recipe, {recipe.recipe.name}")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A recipe's name or path.")],
    directory: Annotated[Path, typer.Argument(help="The directory for the copy.")],
    as_json: JsonOption = False,
) -> None:
    """Copy a recipe into a directory to edit it."""
    source = find_recipe(name)
    target = directory / source.name
    if target.exists():
        raise UsageError(f"{target} exists already", "remove it, or copy into another directory")
    directory.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    if as_json:
        emit_json("recipe.copy", True, path=target)
        return
    out.print(f"{target}\nedit it, then: vimectl run recipe {target}")
