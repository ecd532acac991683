"""`vimectl runs`: what became of runs, also of those that go on in another shell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.cli.report import report
from vimectl.util.console import JsonOption, emit_json, out, table

if TYPE_CHECKING:
    from vimectl.runs.catalog import Run

app = typer.Typer(no_args_is_help=True, help="Runs that go on or have ended.")

RunArgument = Annotated[str, typer.Argument(help="A run's name, the path of its directory, or `last`.")]
FolderOption = Annotated[Path, typer.Option("--dir", help="The folder that holds the runs.")]
RUNS = Path("runs")


@app.command("list")
def list_(folder: FolderOption = RUNS, as_json: JsonOption = False) -> None:
    """List the runs of a folder, oldest first."""
    from vimectl.runs import catalog

    found = [catalog.Run(path.absolute()).as_json() for path in catalog.kept_in(folder).values()]
    if as_json:
        emit_json("runs.list", True, runs=found)
        return
    if not found:
        out.print(f"no runs in {folder.absolute()}", markup=False)
        return
    columns = ["run", "recipe", "state", "step", "reward", "started"]
    table(
        "",
        columns,
        [
            [
                run["name"],
                run["recipe"],
                run["state"],
                f"{run['step']}/{run['steps_wanted']}",
                "" if run["reward"] is None else f"{run['reward']:.3f}",
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["started"])),
            ]
            for run in found
        ],
    )


@app.command()
def show(run: RunArgument, folder: FolderOption = RUNS, as_json: JsonOption = False) -> None:
    """Show what a run came to, or how far it is."""
    from vimectl.runs import catalog
    from vimectl.runs.failures import name
    from vimectl.runs.summary import last_checkpoint

    found = catalog.Run(catalog.find(run, folder))
    row, processes = found.as_json(), found.processes()
    journal = found.journal
    metrics = journal.rows[-1] if journal.rows else None
    if as_json:
        emit_json(
            "runs.show",
            True,
            **row,
            phase=journal.phase,
            detail=journal.detail,
            restarts=journal.restarts,
            last_checkpoint=last_checkpoint(found.directory),
            summary=found.summary,
            metrics=metrics,
            processes=processes,
        )
        return
    table("", ["run", row["name"]], _rows(found))
    living = [[name(entry), entry["state"]] for entry in processes if entry["state"]]
    if living:
        table("", ["process", "state"], living)


@app.command()
def stop(run: RunArgument, folder: FolderOption = RUNS, as_json: JsonOption = False) -> None:
    """Stop a run that goes on, here or in another shell, and wait until it is gone."""
    from vimectl.runs import catalog

    found = catalog.Run(catalog.find(run, folder))
    before = found.state
    ended = catalog.stop(found)
    if as_json:
        emit_json("runs.stop", True, **ended.as_json(), stopped=before == "running")
    elif before == "running":
        out.print(f"{ended.directory.name}: {ended.state}", markup=False)
    else:
        out.print(f"{ended.directory.name} has ended already: {ended.state}", markup=False)


app.command("report")(report)


def _rows(run: Run) -> list[list[str]]:
    from vimectl.runs.summary import last_checkpoint, table_rows
    from vimectl.util.units import duration

    journal, row = run.journal, run.as_json()
    last = journal.rows[-1] if journal.rows else None
    if run.summary is not None:
        return [["state", row["state"]], *table_rows(run.summary, run.directory, last)]
    rows = [
        ["state", row["state"]],
        ["phase", f"{journal.phase} {journal.detail}".strip()],
        ["steps", f"{row['step']} of {row['steps_wanted']}"],
        ["started", f"{duration(time.time() - row['started'])} ago"],
    ]
    if last is not None:
        rows.append(["reward", f"{last['reward/mean']:.3f}"])
    if checkpoint := last_checkpoint(run.directory):
        rows.append(["last checkpoint", checkpoint])
    return [*rows, ["run directory", str(run.directory)]]
