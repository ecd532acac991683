"""`vimectl runs`: list, show and stop runs, also those of another shell, and make their report page."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.process_roles import process_name
from vime_runtime.spec.run_paths import RUNS

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.units import duration

app = typer.Typer(no_args_is_help=True, help="Runs that are running or have ended.")

RunArgument = Annotated[str, typer.Argument(help="A run's name, the path of its directory, or `last`.")]
FolderOption = Annotated[Path, typer.Option("--dir", help="The folder that holds the runs.")]


@app.command("list")
def list_(folder: FolderOption = RUNS) -> CommandOutput:
    """List the runs of a folder, oldest first."""
    from vimectl.runs.run_directory import RunDirectory, list_runs

    found = [RunDirectory(path.absolute()).as_json() for path in list_runs(folder).values()]
    rows = [
        [
            run["name"],
            run["recipe"],
            run["state"],
            f"{run['step']}/{run['steps_wanted']}",
            "" if run["reward"] is None else f"{run['reward']:.3f}",
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["started"])),
        ]
        for run in found
    ]
    table = TextTable(["run", "recipe", "state", "step", "reward", "started"], rows)
    return CommandOutput({"runs": found}, [table if rows else f"no runs in {folder.absolute()}"])


@app.command()
def show(run: RunArgument, folder: FolderOption = RUNS) -> CommandOutput:
    """Show the progress or the result of a run."""
    from vimectl.runs.run_directory import find_run

    found = find_run(run, folder)
    document = found.as_json() | {
        "phase": found.log.phase,
        "detail": found.log.detail,
        "restarts": found.log.restarts,
        "last_checkpoint": found.last_checkpoint,
        "summary": found.summary,
        "metrics": found.log.last_row,
        "processes": found.processes(),
    }
    return CommandOutput(document, _text(found.path, document))


def _text(path: Path, run: dict[str, Any]) -> Iterator[TextTable]:
    from vimectl.runs.summary import table_rows

    rows = [["state", run["state"]]]
    if run["summary"] is not None:
        rows += table_rows(run["summary"], path, run["metrics"])
    else:
        rows += [
            ["phase", f"{run['phase']} {run['detail']}".strip()],
            ["steps", f"{run['step']} of {run['steps_wanted']}"],
            ["started", f"{duration(time.time() - run['started'])} ago"],
        ]
        if run["reward"] is not None:
            rows.append(["reward", f"{run['reward']:.3f}"])
        if run["last_checkpoint"]:
            rows.append(["last checkpoint", run["last_checkpoint"]])
        rows.append(["run directory", run["path"]])
    yield TextTable(["run", run["name"]], rows)
    running = [[process_name(entry), entry["state"]] for entry in run["processes"] if entry["state"]]
    if running:
        yield TextTable(["process", "state"], running)


@app.command()
def stop(run: RunArgument, folder: FolderOption = RUNS) -> CommandOutput:
    """Stop a running run, also of another shell, and wait until it has ended."""
    from vimectl.runs.run_directory import find_run, stop_run

    found = find_run(run, folder)
    stopped = found.state == "running"
    ended = stop_run(found)
    line = f"{ended.path.name}{'' if stopped else ' has ended already'}: {ended.state}"
    return CommandOutput(ended.as_json() | {"stopped": stopped}, [line])


@app.command()
def report(
    run: RunArgument,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Where to write the page; by default report.html of the run.")
    ] = None,
) -> CommandOutput:
    """Write a run's curves, responses and settings as one HTML page that needs no network."""
    from vimectl.runs import report as report_page
    from vimectl.runs.run_directory import find_run

    try:
        page = report_page.write(find_run(run).path, out_file)
    except OSError as e:
        raise UsageError(f"the page cannot be written: {e}", "name another path with --out FILE") from e
    return CommandOutput({"path": page.absolute()}, [str(page)])
