"""`vimectl recipe`: list, show, copy and validate recipes, and describe their keys."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.regular_files import read_regular

from vimectl.cli import complete
from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.options import RecipeArgument
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.recipes.catalog import find_recipe, shipped_recipes
from vimectl.util.console import FileText
from vimectl.util.output_file import check_output, write_output
from vimectl.util.resources import data_dir

if TYPE_CHECKING:
    from vimectl.recipes.recipe_schema import SchemaKey

app = CommandGroup(help="List, show, copy and validate recipes, and describe their keys.")

INDENT = "    "


@app.command("list", epilog=epilog("vimectl recipe list", "vimectl recipe list --json"))
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


@app.command(epilog=epilog("vimectl recipe show qwen3-4b-tp2", "vimectl recipe show ./mine.toml"))
def show(name: RecipeArgument) -> CommandOutput:
    """Print a recipe."""
    from vimectl.recipes.resolve import load_recipe

    path = find_recipe(name)
    document = {"path": path, "recipe": load_recipe(path).model_dump(mode="json")}
    return CommandOutput(document, [FileText(path.read_text(encoding="utf-8"))])


@app.command(epilog=epilog("vimectl recipe validate ./mine.toml", done="the recipe is valid"))
def validate(path: RecipeArgument) -> CommandOutput:
    """Check every key of a recipe.

    The arguments that it passes to vLLM are checked if vLLM is installed.
    """
    from vimectl.recipes import vllm_arguments
    from vimectl.recipes.resolve import load_recipe
    from vimectl.util.host import Host

    found = find_recipe(path)
    recipe = load_recipe(found)
    vllm_arguments.check(recipe, Host())
    name = recipe.recipe.name
    return CommandOutput({"path": found, "name": name}, [f"{found}: a valid recipe, {name}"])


@app.command(
    epilog=epilog(
        "vimectl recipe copy qwen3-tiny-tp2 mine",
        "vimectl run mine/qwen3-tiny-tp2.toml       # after editing it",
    )
)
def copy(
    name: RecipeArgument,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory for the copy.")],
) -> CommandOutput:
    """Copy a recipe into a directory, to edit it.

    The schema next to it lets an editor complete the keys.
    """
    from vimectl.recipes.recipe_schema import SCHEMA_FILE

    source = find_recipe(name)
    target = directory / source.name
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already", "remove it, or copy into another directory")
    directory.mkdir(parents=True, exist_ok=True)
    schema_file = directory / SCHEMA_FILE
    check_output(schema_file)
    write_output(target, read_regular(source))
    write_output(schema_file, (data_dir("recipes") / SCHEMA_FILE).read_bytes())
    text = f"{target}\nedit it, then: vimectl run {shlex.quote(str(target))}"
    return CommandOutput({"path": target, "schema_path": schema_file}, [text])


@app.command(epilog=epilog("vimectl recipe schema rollout", "vimectl recipe schema rollout.top_k"))
def schema(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="KEY",
            help="A key or table, for example rollout.top_k; by default all.",
            autocompletion=complete.recipe_keys,
        ),
    ] = None,
) -> CommandOutput:
    """Describe the keys of a recipe: type, default, meaning."""
    from vimectl.recipes.recipe_schema import all_keys, describe, find_key, json_schema

    keys = describe(key) if key else all_keys()
    node = find_key(key).node if key else json_schema()
    documents = [asdict(one) for one in keys]
    return CommandOutput({"keys": documents, "json_schema": node}, _schema_text(keys))


def _schema_text(keys: list[SchemaKey]) -> Iterator[str]:
    """Yield a paragraph for each table and key."""
    for one in keys:
        facts = [fact for fact in (one.type, one.default_text) if fact]
        head = f"\n[{one.key}]" if one.is_table else f"{one.key}: {', '.join(facts)}"
        yield "\n".join(
            [
                head,
                *textwrap.wrap(
                    one.description.removeprefix(f"`[{one.key}]`: "),
                    96,
                    initial_indent=INDENT,
                    subsequent_indent=INDENT,
                ),
            ]
        )
