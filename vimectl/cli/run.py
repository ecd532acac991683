"""`vimectl run recipe`: resolve a recipe, check the machine, launch the run, print the result."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vime_runtime.spec.errors import VimeError
from vime_runtime.spec.run_paths import RunPaths

from vimectl.util.console import JsonOption, emit_json, err, out, table
from vimectl.util.host import Host

if TYPE_CHECKING:
    from vime_runtime.spec.recipe import Recipe

    from vimectl.recipes.environment import Setting
    from vimectl.runs.launch import RunResult
    from vimectl.runs.plan import RunPlan
    from vimectl.runs.preflight import Preflight

app = typer.Typer(no_args_is_help=True, help="Launch the bundled colocated runtime.")


@app.callback()
def _group() -> None:
    """Launch the bundled colocated runtime."""


@app.command()
def recipe(
    name: Annotated[str, typer.Argument(help="A recipe's name, or the path of a recipe file.")],
    mode: Annotated[str | None, typer.Option(help="smoke, test or long: the number of steps.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, for example model.path=DIR."),
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="The run directory; by default runs/<recipe>-<UTC time>.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in --run-dir, with the same settings.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto",
            help="An existing Ray cluster to run in; by default the run starts and stops its own.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run; start nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Apply missing patches without asking.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe on this machine."""
    from vimectl.patches import command as patches
    from vimectl.recipes.resolve import resolve
    from vimectl.runs import npu_notice, preflight
    from vimectl.runs.launch import check_run_inputs, launch
    from vimectl.runs.plan import make_plan
    from vimectl.runs.progress import progress_view
    from vimectl.runs.resume import finished_steps

    host = Host()
    resolved = resolve(name, mode, assignments)
    plan = make_plan(resolved, host, run_dir, address, resume)
    if resume and (steps := finished_steps(plan.run_dir)) >= resolved.steps:
        _print_nothing_to_do(plan, steps, as_json)
        return
    found = preflight.examine(resolved.recipe, host)
    if dry_run:
        _print_plan(plan, found, as_json)
        return
    if found.has_leftover_processes:
        err.print("waiting for the processes of another run to exit")
        found = preflight.wait_for_leftovers(found, host)
    if not found.only_patches_missing:
        found.require()
    # Before patches are applied: a run that cannot start changes nothing.
    check_run_inputs(resolved.recipe)
    if found.only_patches_missing and (yes or _confirm_patches(found)):
        patches.change("apply", found.patches or [])
        found = preflight.examine(resolved.recipe, host)
    found.require()
    if not npu_notice.has_completed(resolved.recipe) and (notice := npu_notice.text(resolved.recipe)):
        err.print(notice, markup=False)
    with progress_view(err.console, f"{resolved.recipe.recipe.name} {resolved.mode}") as view:
        result = launch(plan, found.doctor.as_json(), view)
    _print_result(result, plan.run_dir, as_json)
    raise typer.Exit(result.exit_code)


def _confirm_patches(found: Preflight) -> bool:
    """Ask at a terminal whether to apply patches; the answer is no without one."""
    if not (sys.stdin.isatty() and err.is_terminal):
        return False
    packages = ", ".join(target.target.package for target in found.patches or () if target.state != "applied")
    return typer.confirm(f"Patches are missing from {packages}. Apply them?", err=True)


def _print_nothing_to_do(plan: RunPlan, steps: int, as_json: bool) -> None:
    message = f"the run finished with step {steps} of {plan.resolved.steps}: nothing is left to do"
    if as_json:
        emit_json("run.recipe", True, run_dir=plan.run_dir, message=message)
    else:
        out.print(f"{message}; see {plan.run_dir}", markup=False)


def _print_result(result: RunResult, run_dir: Path, as_json: bool) -> None:
    from vimectl.runs.summary import table_rows

    if as_json:
        emit_json("run.recipe", result.exit_code == 0, run_dir=run_dir, summary=result.summary)
        return
    rows = table_rows(result.summary, run_dir, result.last_row)
    if (page := RunPaths(run_dir).report).exists():
        rows.append(["report", str(page)])
    table("", ["run", result.summary["recipe"]], rows)
    if hint := result.summary["hint"]:
        err.print(hint, markup=False)


def _print_plan(plan: RunPlan, found: Preflight, as_json: bool) -> None:
    from vime_runtime.spec.device_layout import placement

    from vimectl.runs.plan import runtime_command

    command = runtime_command(plan.run_dir)
    wrong = _input_error(plan.resolved.recipe)
    devices = placement(plan.resolved.recipe)
    if as_json:
        keys = {"recipe", "overrides", "mode", "steps", "run_dir", "address", "environment", "required"}
        emit_json(
            "run.recipe",
            True,
            **plan.run_config().model_dump(mode="json", include=keys),
            command=command,
            preflight=found.as_json(),
            inputs={"ok": wrong is None, "error": wrong and {"message": wrong.message, "hint": wrong.hint}},
            placement=devices,
        )
        return
    resolved = plan.resolved
    out.print(f"{resolved.recipe.recipe.name}, {resolved.mode}: {resolved.steps} steps in {plan.run_dir}")
    out.print(shlex.join(command), markup=False)
    _print_environment(plan)
    where = f"the Ray cluster at {plan.address}" if plan.address else "a private Ray cluster"
    out.print(f"\n[bold]placement[/] in {where}")
    rows = [
        [
            f"node {d['node']}, device {d['device']}",
            f"rank {d['train_rank']}, replica {d['train_replica']}",
            f"engine {d['engine']}, rank {d['engine_rank']}",
        ]
        for d in devices
    ]
    table("", ["device", "trainer", "engine"], rows)
    failures = [(f.id, f"{f.found}; needed: {f.expected}", f.fix) for f in found.doctor.failures]
    if wrong:
        failures.append(("inputs", wrong.message, wrong.hint))
    if not failures:
        out.print("\nthis machine can run it")
        return
    out.print("\n[bold]a run would fail with[/]")
    for name, message, hint in failures:
        out.print(f"{name}: {message}\n    hint: {hint}", markup=False)


def _print_environment(plan: RunPlan) -> None:
    """Print every variable once, below the processes that get it, with the reason."""
    processes: dict[tuple[str, Setting], list[str]] = {}
    for role, settings in plan.settings.items():
        for name, setting in settings.items():
            processes.setdefault((name, setting), []).append(role)
    for group in dict.fromkeys(map(tuple, processes.values())):
        out.print(f"\n[bold]environment of {', '.join(group)}[/]")
        for (name, setting), roles in processes.items():
            if tuple(roles) == group:
                out.print(f"{name}={shlex.quote(setting.value)}\n    {setting.reason}", markup=False)


def _input_error(recipe: Recipe) -> VimeError | None:
    """Return the error that a run would report about model and data."""
    from vimectl.runs.launch import check_run_inputs

    try:
        check_run_inputs(recipe)
    except VimeError as e:
        return e
    return None
