"""`vimectl run recipe`: resolve, check, launch, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.console import JsonOption, emit_json, err, table

if TYPE_CHECKING:
    from vimectl.recipe.launch import Ended

app = typer.Typer(no_args_is_help=True, help="Launch the bundled colocated runtime.")


@app.callback()
def _group() -> None:
    """Launch the bundled colocated runtime."""


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="A recipe's name, or the path of a recipe file.")],
    mode: Annotated[str | None, typer.Option(help="smoke, test or long: how many steps.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, say model.path=DIR."),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run is kept; runs/<recipe>-<UTC time> when not given.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; start nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Apply missing patches without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe on this machine."""
    from vimectl.host import Host
    from vimectl.recipe import plan as planning
    from vimectl.recipe.launch import launch
    from vimectl.recipe.progress import showing
    from vimectl.recipe.resolve import resolve

    host = Host()
    resolved = resolve(name, mode, assignments)
    plan = planning.make(resolved, host, run_dir)
    with showing(err, f"{resolved.recipe.recipe.name} {resolved.mode}") as progress:
        ended = launch(plan, [], progress)
    if as_json:
        emit_json("run.recipe", ended.exit_code == 0, run_dir=plan.run_dir, summary=ended.summary)
    else:
        _tell(ended, plan.run_dir)
    raise typer.Exit(ended.exit_code)


def _tell(ended: Ended, run_dir: Path) -> None:
    from vimectl.recipe.summary import table_rows

    table("", ["run", ended.summary["recipe"]], table_rows(ended.summary, run_dir, ended.last))
    if ended.hint:
        err.print(ended.hint, markup=False)
