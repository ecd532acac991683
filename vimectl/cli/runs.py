"""`vimectl runs`: list, show, follow, stop and remove runs, also of another shell; make their report page."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vime_runtime.spec import metrics
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.process_roles import process_name
from vime_runtime.spec.run_paths import RUNS

from vimectl.cli import complete
from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.options import DryRun, Yes
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.console import FileText, err, out
from vimectl.util.units import duration, size

if TYPE_CHECKING:
    from vimectl.runs.run_directory import RunDirectory
    from vimectl.runs.run_log import RunLog

app = CommandGroup(help="List, show, follow, stop and remove runs, and make their report.")


RUN_HELP = "A run's name, the path of its directory, or `last`."
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP, autocompletion=complete.runs)]
FolderOption = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The folder that holds the runs.")]


@app.command("list", epilog=epilog("vimectl runs list", "vimectl runs list --dir /shared/runs --json"))
def list_(folder: FolderOption = RUNS) -> CommandOutput:
    """List the runs of a folder, oldest first."""
    from vimectl.runs import leftovers
    from vimectl.runs.run_directory import RunDirectory, list_runs

    leftovers.remove_files(err.note)
    found, damaged = [], []
    for path in list_runs(folder).values():
        try:
            with _explain_damage(path):
                found.append(RunDirectory(path.absolute()).as_json())
        except UsageError as e:  # the others are listed all the same
            damaged.append({"path": path.absolute(), "message": e.message, "hint": e.hint})
            err.note(f"{e.message}: {e.hint}")
    rows = [
        [
            run["name"],
            str(run["recipe"]),
            run["state"],
            f"{run['step']}/{run['steps_wanted']}",
            "" if run["reward"] is None else f"{run['reward']:.3f}",
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run["started"])),
        ]
        for run in found
    ]
    table = TextTable(["run", "recipe", "state", "step", "reward", "started"], rows)
    text = [table] if rows else [] if damaged else [f"no runs in {folder.absolute()}"]
    return CommandOutput({"runs": found, "damaged": damaged}, text)


@app.command(epilog=epilog("vimectl runs show last"))
def show(run: RunArgument, folder: FolderOption = RUNS) -> CommandOutput:
    """Show the progress or the result of a run."""
    from vimectl.runs.run_directory import find_run
    from vimectl.runs.run_log import phase_shares

    found = find_run(run, folder)
    with _explain_damage(found.path):
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
        return CommandOutput(document, list(_text(found.path, document)))


@contextmanager
def _explain_damage(run_dir: Path) -> Iterator[None]:
    """Raise UsageError if the files of a run lack what every run has, or have something else in its place."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as e:
        message = f"{run_dir}: a file of the run is damaged: {type(e).__name__}: {e}"
        raise UsageError(message, "restore it, or remove the directory") from e


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


@app.command(
    epilog=epilog(
        "vimectl runs logs last -f",
        "vimectl runs logs last --process trainer-0",
    )
)
def logs(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more until the run has ended.")
    ] = False,
    process: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The log of one process instead, for example trainer-0.",
            autocompletion=complete.processes,
        ),
    ] = None,
    folder: FolderOption = RUNS,
) -> CommandOutput:
    """Print the log of a run, or of one of its processes."""
    from vimectl.runs import read_logs
    from vimectl.runs.run_directory import RunDirectory, find_run

    found = find_run(run, folder)
    lines = read_logs.process_log(found, process, follow) if process else read_logs.progress(found, follow)

    def checked() -> Iterator[str]:
        with _explain_damage(found.path):
            yield from lines

    def document() -> dict[str, Any]:
        text = list(checked())
        return {"name": found.path.name, "state": RunDirectory(found.path).state, "lines": text}

    # A log is a file, and its lines are for other programs if piped.
    shown = read_logs.printable if out.is_terminal else FileText if process else str
    return CommandOutput(document, map(shown, checked()))


@app.command(epilog=epilog("vimectl runs report last", "vimectl runs report last --out report.html"))
def report(
    run: RunArgument,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE", help="Where to write the page, - for stdout; by default in the run."
        ),
    ] = None,
    folder: FolderOption = RUNS,
) -> CommandOutput:
    """Write a run as one HTML page.

    It has the curves, responses and settings of the run, and needs no network.
    """
    from vimectl.runs import report as report_page
    from vimectl.runs.run_directory import find_run
    from vimectl.util.output_file import STDOUT, check_output

    found = find_run(run, folder)
    if out_file:
        check_output(out_file)
    with _explain_damage(found.path):
        page = report_page.write(found.path, out_file)
    if page == STDOUT:
        return CommandOutput({"path": "-"}, [])
    return CommandOutput({"path": page.absolute()}, [str(page)])


@app.command(epilog=epilog("vimectl runs stop last", done="the run has ended"))
def stop(run: RunArgument, folder: FolderOption = RUNS) -> CommandOutput:
    """Stop a run, and wait until it has ended.

    It can be a run of another shell.
    """
    from vimectl.runs import leftovers
    from vimectl.runs.run_directory import find_run, stop_run

    found = find_run(run, folder)
    stopped = found.state == "running"
    # Of a lost run only processes can be left.
    ended = found if leftovers.end_processes(found, err.note) else stop_run(found)
    leftovers.remove_files(err.note)
    line = f"{ended.path.name}{'' if stopped else ' has ended already'}: {ended.state}"
    return CommandOutput(ended.as_json() | {"stopped": stopped}, [line])


@app.command(
    epilog=epilog(
        "vimectl runs rm qwen3-tiny-tp2-20250101-120000",
        "vimectl runs rm last --dry-run",
        failed="the answer was no, or an unexpected error",
    )
)
def rm(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help=RUN_HELP, autocompletion=complete.runs)],
    folder: FolderOption = RUNS,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> CommandOutput:
    """Remove runs that have ended.

    Their directories are removed, with checkpoints and trained models.
    """
    from vimectl.runs import leftovers, remove_run
    from vimectl.runs.run_directory import find_run

    leftovers.remove_files(err.note)
    found = list({one.path: one for one in (find_run(run, folder) for run in runs)}.values())
    for one in found:
        remove_run.check_removable(one)
    if dry_run:
        text = [f"would remove {_description(one)}" for one in found]
        return CommandOutput({"removed": [], "dry_run": True, "runs": [one.path for one in found]}, text)
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
        err.print(_description(one))
    return typer.confirm(f"Remove {'this run' if len(runs) == 1 else f'these {len(runs)} runs'}?", err=True)


def _description(run: RunDirectory) -> str:
    entry = run.as_json()
    models = ", with its trained model in checkpoints/final" if run.files.final_model.exists() else ""
    return f"{run.path}: {entry['state']}, step {entry['step']} of {entry['steps_wanted']}{models}"
