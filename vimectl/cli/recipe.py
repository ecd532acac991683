"""`vimectl recipe`: list, show, copy and validate recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from vime_runtime.spec.errors import UsageError

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.recipes.catalog import find_recipe, shipped_recipes

app = typer.Typer(no_args_is_help=True, help="List, show, copy and validate recipes.")

RecipeArgument = Annotated[str, typer.Argument(help="A recipe's name or path.")]


@app.command("list")
def list_recipes() -> CommandOutput:
    """List the recipes that ship with vimectl."""
    from vimectl.recipes.resolve import load_recipe

    recipes = {name: load_recipe(path) for name, path in shipped_recipes().items()}
    documents = [{**r.recipe.model_dump(), "device": r.cluster.device} for r in recipes.values()]
    rows = [
        [name, r.recipe.stack, f"{r.cluster.devices} {r.cluster.device}", r.recipe.description]
        for name, r in recipes.items()
    ]
    table = TextTable(["recipe", "stack", "devices", "description"], rows)
    return CommandOutput({"recipes": documents}, [table])


@app.command()
def show(name: RecipeArgument) -> CommandOutput:
    """Print a recipe."""
    from vimectl.recipes.resolve import load_recipe

    path = find_recipe(name)
    document = {"path": path, "recipe": load_recipe(path).model_dump(mode="json")}
    return CommandOutput(document, [path.read_text(encoding="utf-8")])


@app.command()
def validate(path: RecipeArgument) -> CommandOutput:
    """Check every key of a recipe against the schema."""
    from vimectl.recipes.resolve import load_recipe

    found = find_recipe(path)
    name = load_recipe(found).recipe.name
    return CommandOutput({"path": found, "name": name}, [f"{found}: a valid recipe, {name}"])


@app.command()
def copy(
    name: RecipeArgument,
    directory: Annotated[Path, typer.Argument(help="The directory for the copy.")],
) -> CommandOutput:
    """Copy a recipe into a directory to edit it."""
    source = find_recipe(name)
    target = directory / source.name
    if target.exists():
        raise UsageError(f"{target} exists already", "remove it, or copy into another directory")
    directory.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())
    return CommandOutput({"path": target}, [f"{target}\nedit it, then: vimectl run recipe {target}"])
