"""`vimectl runs`: list, show, follow, stop and remove runs, also of another shell; make their report page."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vime_runtime.spec import metrics
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.process_roles import process_name
from vime_runtime.spec.run_paths import RUNS

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.console import err, out
from vimectl.util.units import duration, size

if TYPE_CHECKING:
    from vimectl.runs.run_directory import RunDirectory
    from vimectl.runs.run_log import RunLog

app = typer.Typer(no_args_is_help=True, help="Runs that are running or have ended.")


def _complete_run(incomplete: str) -> list[str]:
    """Return the names of runs that begin with a text, for completion in a shell."""
    from vimectl.runs.run_directory import list_runs

    return [name for name in list_runs(RUNS) if name.startswith(incomplete)]


RUN_HELP = "A run's name, the path of its directory, or `last`."
RunArgument = Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=_complete_run)]
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
    from vimectl.runs.run_log import phase_shares

    found = find_run(run, folder)
    document = found.as_json() | {
        "phase": found.log.phase,
        "detail": found.log.detail,
        "restarts": found.log.restarts,
        "last_checkpoint": found.last_checkpoint,
        "summary": found.summary,
        "metrics": found.log.last_row,
        "phase_shares": phase_shares(found.log),
        "reward_failures": _reward_failures(found.log),
        "evaluation_sets": found.log.set_scores,
        "processes": found.processes(),
    }
    return CommandOutput(document, _text(found.path, document))


def _reward_failures(log: RunLog) -> dict[str, int]:
    """Return how many responses of all steps could not be scored."""
    keys = {"timeouts": metrics.REWARD_TIMEOUTS, "errors": metrics.REWARD_ERRORS}
    return {name: int(sum(row.get(key) or 0 for row in log.rows)) for name, key in keys.items()}


def _more_rows(run: dict[str, Any]) -> Iterator[list[str]]:
    """Yield where the time goes, responses without a reward, and the scores of each evaluation set."""
    shares = [f"{phase} {share:.0%}" for phase, share in run["phase_shares"].items() if share >= 0.005]
    if shares:
        yield ["time", ", ".join(shares)]
    if any(run["reward_failures"].values()):
        timeouts, errors = run["reward_failures"]["timeouts"], run["reward_failures"]["errors"]
        yield ["scoring", f"{timeouts} responses timed out, {errors} failed; they scored 0"]
    sets = run["evaluation_sets"]
    for name in sets[max(sets)] if sets else ():
        scores = {step: found[name] for step, found in sets.items() if name in found}
        best = max(scores, key=lambda step: scores[step])
        last = f"{scores[max(scores)]:.3f} at step {max(scores)}"
        yield [f"evaluation {name}", f"{last}, {scores[best]:.3f} at best, at step {best}"]


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
    rows[-1:-1] = _more_rows(run)  # the run directory is last
    yield TextTable(["run", run["name"]], rows)
    running = [[process_name(entry), entry["state"]] for entry in run["processes"] if entry["state"]]
    if running:
        yield TextTable(["process", "state"], running)


@app.command()
def logs(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more until the run has ended.")
    ] = False,
    process: Annotated[
        str | None,
        typer.Option(metavar="NAME", help='The log of one process instead, for example "trainer 0".'),
    ] = None,
    folder: FolderOption = RUNS,
) -> CommandOutput:
    """Print the progress of a run as lines, or what one of its processes has written."""
    from vimectl.runs import read_logs
    from vimectl.runs.run_directory import RunDirectory, find_run

    found = find_run(run, folder)
    lines = read_logs.process_log(found, process, follow) if process else read_logs.progress(found, follow)

    def document() -> dict[str, Any]:
        text = list(lines)
        return {"name": found.path.name, "state": RunDirectory(found.path).state, "lines": text}

    return CommandOutput(document, map(read_logs.printable, lines) if out.is_terminal else lines)


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
def rm(
    runs: Annotated[list[str], typer.Argument(help=RUN_HELP, autocompletion=_complete_run)],
    folder: FolderOption = RUNS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")] = False,
) -> CommandOutput:
    """Remove the directories of runs that have ended, with their checkpoints and trained models."""
    from vimectl.runs import remove_run
    from vimectl.runs.run_directory import find_run

    found = list({one.path: one for one in (find_run(run, folder) for run in runs)}.values())
    for one in found:
        remove_run.check_removable(one)
    if not (yes or _confirm_removal(found)):
        return CommandOutput({"removed": []}, ["nothing was removed"], 1)
    freed = {one.path: remove_run.remove(one) for one in found}
    document = {"removed": [{"path": path, "bytes": count} for path, count in freed.items()]}
    return CommandOutput(document, [f"{path}: removed, {size(count)} freed" for path, count in freed.items()])


def _confirm_removal(runs: list[RunDirectory]) -> bool:
    """Ask at a terminal. Raises UsageError without one."""
    if not (sys.stdin.isatty() and err.is_terminal):
        raise UsageError("removing a run has to be confirmed", "add --yes")
    for one in runs:
        entry = one.as_json()
        models = ", with its trained model in checkpoints/final" if one.files.final_model.exists() else ""
        err.print(f"{one.path}: {entry['state']}, step {entry['step']} of {entry['steps_wanted']}{models}")
    return typer.confirm(f"Remove {'this run' if len(runs) == 1 else f'these {len(runs)} runs'}?", err=True)


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
