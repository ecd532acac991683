"""`vimectl run recipe`: resolve a recipe, check the machine, launch the run, print the result."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vime_runtime.spec.errors import MissingRequirement, VimeError
from vime_runtime.spec.run_modes import Mode
from vime_runtime.spec.run_paths import RUNS, RunPaths

from vimectl.cli.help_text import CommandGroup, HelpGroup, epilog
from vimectl.cli.options import SWITCHES, Assignments, DryRun, RecipeArgument, Yes, address_option
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.console import Markup, err, escape_markup
from vimectl.util.host import Host

if TYPE_CHECKING:
    from vimectl.recipes.environment import Setting
    from vimectl.runs.plan import RunPlan
    from vimectl.runs.preflight import Preflight
    from vimectl.runs.watch_supervisor import RunResult


class RunGroup(HelpGroup):
    """The group ``run``. `vimectl run NAME` is short for `vimectl run recipe NAME`."""

    default_command = "recipe"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command unless it is given."""
        words = [word for word in args if word not in SWITCHES]
        if args and words[:1] != [self.default_command]:
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete what can follow the command too: recipes and options."""
        command = self.commands[self.default_command]
        inner = command.context_class(command, info_name=command.name, parent=ctx, resilient_parsing=True)
        parameter = command if incomplete.startswith("-") else command.params[0]
        found = [*parameter.shell_complete(inner, incomplete), *super().shell_complete(ctx, incomplete)]
        return list({item.value: item for item in found}.values())


app = CommandGroup(
    help="Run a recipe: `vimectl run NAME` is short for `vimectl run recipe NAME`.",
    cls=RunGroup,
    subcommand_metavar="[recipe] RECIPE [OPTIONS]",
)


# What to do with a detached run, and the words of `vimectl runs` that do it.
FOLLOW_COMMANDS = {"follow": ["logs", "-f"], "show": ["show"], "stop": ["stop"]}


@app.callback()
def _group() -> None:
    pass


@app.command(
    epilog=epilog(
        "vimectl run qwen3-tiny-tp2",
        "vimectl run qwen3-4b-tp2 --mode long --set model.path=/models/Qwen3-4B --detach",
        "vimectl run ./mine.toml --dry-run                                              # start nothing",
        "vimectl run qwen3-tiny-tp2 --resume --run-dir runs/qwen3-tiny-tp2-20250101-120000",
        done="the run reached its last step; with --dry-run: it can start here",
        failed="the run failed or was stopped; summary.json has the reason",
        lacking="this machine cannot run the recipe, or lacks disk space",
    )
)
def recipe(
    name: RecipeArgument,
    mode: Annotated[
        Mode | None, typer.Option(help="The number of steps; by default the recipe's default_mode.")
    ] = None,
    assignments: Assignments = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The run directory; by default runs/<recipe>-<UTC time>."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run in --run-dir, with the same settings.")
    ] = False,
    address: Annotated[
        str | None,
        address_option("An existing Ray cluster to run in; by default the run starts and stops its own."),
    ] = None,
    dry_run: DryRun = False,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Return when the run has started; it outlives this shell and session."),
    ] = False,
    yes: Yes = False,
) -> CommandOutput:
    """Run a recipe on this machine.

    The machine and the inputs are checked first. At a terminal vimectl offers to apply missing patches.

    `vimectl run NAME` is short for `vimectl run recipe NAME`.
    """
    from vimectl.patches import command as patches
    from vimectl.recipes import vllm_arguments
    from vimectl.recipes.resolve import resolve
    from vimectl.runs import leftovers, npu_notice, preflight
    from vimectl.runs.launch import check_run_inputs, launch, launch_detached
    from vimectl.runs.plan import make_plan
    from vimectl.runs.progress import progress_view
    from vimectl.runs.resume import finished_steps
    from vimectl.runs.run_directory import RunDirectory

    host = Host()
    resolved = resolve(name, mode, assignments)
    plan = make_plan(resolved, host, run_dir, address, resume)
    if plan.resume and plan.steps and (steps := finished_steps(plan.run_dir)) >= plan.steps:
        message = f"the run finished with step {steps} of {plan.steps}: nothing is left to do"
        document = {"run_dir": plan.run_dir, "message": message}
        return CommandOutput(document, [f"{message}; see {plan.run_dir}"])
    if notice := vllm_arguments.notice(resolved.recipe):
        err.note(notice)
    if not dry_run:
        if plan.resume:
            leftovers.end_processes(RunDirectory(plan.run_dir), err.note)
        leftovers.remove_files(err.note)
    found = preflight.examine(resolved.recipe, host, plan.address)
    if dry_run:
        return _dry_run(plan, found)
    if found.has_leftover_processes:
        err.note("waiting for the processes of another run to exit")
        found = preflight.wait_for_leftovers(found, host, plan.address)
    if not found.only_patches_missing:
        found.require()
    # Before patches are applied: a run that cannot start changes nothing.
    check_run_inputs(resolved.recipe)
    if found.only_patches_missing and (yes or _confirm_patches(found)):
        patches.change("apply", found.patches or [])
        found = preflight.examine(resolved.recipe, host, plan.address)
    found.require()
    if not npu_notice.has_completed(resolved.recipe) and (notice := npu_notice.text(resolved.recipe)):
        err.note(notice)
    with progress_view(err.progress_console(), f"{resolved.recipe.recipe.name} {resolved.mode}") as view:
        if detach:
            launch_detached(plan, found.doctor.as_json(), view)
        else:
            result = launch(plan, found.doctor.as_json(), view)
    if detach:
        return _detached(plan.run_dir)
    document = {"run_dir": plan.run_dir, "summary": result.summary}
    return CommandOutput(document, _result_text(result, plan.run_dir), result.exit_code)


def _detached(run_dir: Path) -> CommandOutput:
    """Return the name of a detached run, and the commands that follow and stop it."""
    from vimectl.runs.run_directory import RunDirectory

    run = RunDirectory(run_dir)
    name = run_dir.name if run_dir.parent == RUNS.absolute() else str(run_dir)
    commands = {
        verb: shlex.join(["vimectl", "runs", *words, name]) for verb, words in FOLLOW_COMMANDS.items()
    }
    document = {"run_dir": run_dir, "name": run_dir.name, "state": run.state, "commands": commands}
    rows = [["run directory", str(run_dir)], *([verb, command] for verb, command in commands.items())]
    return CommandOutput(document, [TextTable(["detached run", run_dir.name], rows)])


def _confirm_patches(found: Preflight) -> bool:
    """Ask at a terminal whether to apply patches; the answer is no without one."""
    if not (sys.stdin.isatty() and err.is_terminal):
        return False
    packages = ", ".join(target.target.package for target in found.patches or () if not target.complete)
    return typer.confirm(f"Patches are missing from {packages}. Apply them?", err=True)


def _result_text(result: RunResult, run_dir: Path) -> Iterator[TextTable]:
    from vimectl.runs.summary import table_rows

    rows = table_rows(result.summary, run_dir, result.last_row)
    if (page := RunPaths(run_dir).report).exists():
        rows.append(["report", str(page)])
    yield TextTable(["run", result.summary["recipe"]], rows)
    if excerpt := result.summary["excerpt"]:
        err.print(excerpt)


def _dry_run(plan: RunPlan, found: Preflight) -> CommandOutput:
    """Return the plan of a run and what stops it. The exit code is that of the refused run."""
    from vime_runtime.spec.device_layout import placement

    from vimectl.runs.launch import check_run_inputs
    from vimectl.runs.plan import runtime_command

    resolved, command, devices = plan.resolved, runtime_command(plan.run_dir), placement(plan.resolved.recipe)
    failures = [(f.id, f"{f.found}; needed: {f.expected}", f.fix) for f in found.doctor.failures]
    exit_code = MissingRequirement.exit_code if failures else 0
    wrong = None
    try:
        check_run_inputs(resolved.recipe)
    except VimeError as e:
        exit_code = exit_code or e.exit_code
        wrong = {"message": e.message, "hint": e.hint}
        failures.append(("inputs", e.message, e.hint))
    keys = {"recipe", "overrides", "mode", "steps", "run_dir", "address", "environment", "required"}
    config = replace(plan, steps=plan.steps or 1).run_config().masked()
    document = config.model_dump(mode="json", include=keys) | {
        "steps": plan.steps,  # null: not known before the data is read
        "command": command,
        "preflight": found.as_json(),
        "inputs": {"ok": wrong is None, "error": wrong},
        "placement": devices,
    }
    rows = [
        [
            f"node {d['node']}, device {d['device']}",
            f"rank {d['train_rank']}, replica {d['train_replica']}",
            f"engine {d['engine']}, rank {d['engine_rank']}",
        ]
        for d in devices
    ]
    where = f"the Ray cluster at {plan.address}" if plan.address else "a private Ray cluster"
    text = [
        f"{resolved.recipe.recipe.name}, {resolved.mode}: {plan.length} in {plan.run_dir}",
        shlex.join(command),
        *_environment_text(plan),
        Markup(f"\n[bold]placement[/] in {escape_markup(where)}"),
        TextTable(["device", "trainer", "engine"], rows),
        Markup("\n[bold]a run would fail with[/]") if failures else "\nthis machine can run it",
        *(f"{name}: {message}\n    hint: {hint}" for name, message, hint in failures),
    ]
    return CommandOutput(document, text, exit_code)


def _environment_text(plan: RunPlan) -> Iterator[str]:
    """Yield every variable once, below the processes that get it, with the reason."""
    processes: dict[tuple[str, Setting], list[str]] = {}
    for role, settings in plan.shown_settings.items():
        for name, setting in settings.items():
            processes.setdefault((name, setting), []).append(role)
    for group in dict.fromkeys(map(tuple, processes.values())):
        yield Markup(f"\n[bold]environment of {', '.join(group)}[/]")
        for (name, setting), roles in processes.items():
            if tuple(roles) == group:
                yield f"{name}={shlex.quote(setting.value)}\n    {setting.reason}"
