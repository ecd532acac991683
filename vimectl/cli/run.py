"""`vimectl run recipe`: resolve, check, launch, report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.util.console import JsonOption, emit_json, err, out, table

if TYPE_CHECKING:
    from vime_runtime.spec.errors import VimeError
    from vime_runtime.spec.recipe import Recipe

    from vimectl.recipes.environment import Setting
    from vimectl.runs.launch import Ended
    from vimectl.runs.plan import Plan
    from vimectl.runs.preflight import Preflight

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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --run-dir, with the same settings.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto",
            help="An existing Ray cluster to run in; a private one, ended with the run, when not given.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; start nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Apply missing patches without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe on this machine."""
    from vimectl.recipes.resolve import resolve
    from vimectl.runs import npu_path, preflight
    from vimectl.runs import plan as planning
    from vimectl.runs import resume as resuming
    from vimectl.runs.launch import check_run_inputs, launch
    from vimectl.runs.progress import showing
    from vimectl.util.host import Host

    host = Host()
    resolved = resolve(name, mode, assignments)
    plan = planning.make(resolved, host, run_dir, address, resume)
    if resume and (steps := resuming.finished_steps(plan.run_dir)) >= resolved.steps:
        _show_nothing_left(plan, steps, as_json)
        return
    found = preflight.examine(resolved.recipe, host)
    if dry_run:
        _show_plan(plan, found, as_json)
        return
    if found.meets_an_ending:
        err.print("the processes of another run are still here: waiting for them to end")
        found = preflight.after_endings(found, host)
    if not found.only_lacks_patches:
        found.require()
    # Before a patch is applied: a run that cannot start leaves nothing behind.
    check_run_inputs(resolved.recipe)
    if found.only_lacks_patches and (yes or _agreed(found)):
        preflight.apply_patches(found)
        found = preflight.examine(resolved.recipe, host)
    found.require()
    if not npu_path.completed(resolved.recipe) and (notice := npu_path.notice(resolved.recipe)):
        err.print(notice, markup=False)
    with showing(err.console, f"{resolved.recipe.recipe.name} {resolved.mode}") as progress:
        ended = launch(plan, found.doctor.as_json(), progress)
    _show_end(ended, plan.run_dir, as_json)
    raise typer.Exit(ended.exit_code)


def _agreed(found: Preflight) -> bool:
    """Ask at a terminal; without one nobody can agree."""
    if not (sys.stdin.isatty() and err.is_terminal):
        return False
    packages = ", ".join(target.target.package for target in found.patches or () if target.state != "applied")
    return typer.confirm(f"Patches are missing from {packages}. Apply them?", err=True)


def _show_nothing_left(plan: Plan, steps: int, as_json: bool) -> None:
    message = f"the run finished with step {steps} of {plan.resolved.steps}: nothing is left to do"
    if as_json:
        emit_json("run.recipe", True, run_dir=plan.run_dir, message=message)
    else:
        out.print(f"{message}; see {plan.run_dir}", markup=False)


def _show_end(ended: Ended, run_dir: Path, as_json: bool) -> None:
    from vimectl.runs import report
    from vimectl.runs.summary import table_rows

    if as_json:
        emit_json("run.recipe", ended.exit_code == 0, run_dir=run_dir, summary=ended.summary)
        return
    rows = table_rows(ended.summary, run_dir, ended.last)
    if (page := run_dir / report.NAME).exists():
        rows.append(["report", str(page)])
    table("", ["run", ended.summary["recipe"]], rows)
    if ended.hint:
        err.print(ended.hint, markup=False)


def _show_plan(plan: Plan, found: Preflight, as_json: bool) -> None:
    wrong = _input_error(plan.resolved.recipe)
    if as_json:
        document = plan.document()
        emit_json(
            "run.recipe",
            True,
            **{
                key: document[key]
                for key in (
                    *("recipe", "overrides", "mode", "steps", "run_dir", "address"),
                    *("environment", "required"),
                )
            },
            command=plan.command,
            preflight=found.as_json(),
            inputs={"ok": wrong is None, "error": wrong and {"message": wrong.message, "hint": wrong.hint}},
            placement=plan.placement(),
        )
        return
    resolved = plan.resolved
    out.print(f"{resolved.recipe.recipe.name}, {resolved.mode}: {resolved.steps} steps in {plan.run_dir}")
    out.print(shlex.join(plan.command), markup=False)
    _show_environment(plan)
    where = f"the Ray cluster at {plan.address}" if plan.address else "a Ray cluster of the run's own"
    out.print(f"\n[bold]placement[/] in {where}")
    table("", ["device", "trainer", "engine"], _placement_rows(plan))
    failures = [(f.id, f"{f.found}; needed: {f.expected}", f.fix) for f in found.doctor.failures]
    if wrong:
        failures.append(("inputs", wrong.message, wrong.hint))
    if not failures:
        out.print("\nnothing stands in the way of a run")
        return
    out.print("\n[bold]a run would stop at[/]")
    for name, what, mend in failures:
        out.print(f"{name}: {what}\n    mend: {mend}", markup=False)


def _show_environment(plan: Plan) -> None:
    """Every variable once, under the processes that get it, with the reason."""
    processes: dict[tuple[str, Setting], list[str]] = {}
    for role, settings in plan.settings.items():
        for name, setting in settings.items():
            processes.setdefault((name, setting), []).append(role)
    for group in dict.fromkeys(map(tuple, processes.values())):
        out.print(f"\n[bold]environment of {', '.join(group)}[/]")
        for (name, setting), roles in processes.items():
            if tuple(roles) == group:
                out.print(f"{name}={shlex.quote(setting.value)}\n    {setting.reason}", markup=False)


def _placement_rows(plan: Plan) -> list[list[str]]:
    return [
        [
            f"node {d['node']}, device {d['device']}",
            f"rank {d['train_rank']}, replica {d['train_replica']}",
            f"engine {d['engine']}, rank {d['engine_rank']}",
        ]
        for d in plan.placement()
    ]


def _input_error(recipe: Recipe) -> VimeError | None:
    """What the run would say of model and data."""
    from vime_runtime.spec.errors import VimeError

    from vimectl.runs.launch import check_run_inputs

    try:
        check_run_inputs(recipe)
    except VimeError as e:
        return e
    return None
