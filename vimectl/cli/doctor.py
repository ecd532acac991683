"""`vimectl doctor`: check that this machine can run the recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vime_runtime.spec.errors import UsageError

from vimectl.cli import complete
from vimectl.cli.doctor_view import check_list, report_text
from vimectl.cli.help_text import epilog
from vimectl.cli.options import AnyStack, Assignments, address_option, recipe_option
from vimectl.cli.output import CommandOutput
from vimectl.stacks.catalog import default_stack, load_stack, stack_for_recipe
from vimectl.util import ray_address
from vimectl.util.console import VERBOSE, Markup, err, escape_markup, one_line
from vimectl.util.host import Host, refuse_command

if TYPE_CHECKING:
    from vimectl.doctor.fix import Fix
    from vimectl.doctor.runner import DoctorReport

EPILOG = epilog(
    "vimectl doctor",
    "vimectl doctor --recipe qwen3-4b-tp2 -v            # also what passed",
    "vimectl doctor --stack ascend-0.22 --only driver",
    "vimectl doctor --fix --dry-run                     # show the fixes",
    "vimectl doctor --text                              # to paste into an issue",
    done="the machine can run it; warnings are possible",
    failed="a check failed",
)


def doctor(
    stack: AnyStack = None,
    recipe: Annotated[str | None, recipe_option("A recipe's name or file: also check what it needs.")] = None,
    assignments: Assignments = None,
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Check another root file system.")] = None,
    python: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The interpreter or environment to check, a path in the root."),
    ] = None,
    address: Annotated[
        str | None, address_option("Also check and compare the nodes of a Ray cluster.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="Only this check or group.", autocompletion=complete.checks),
    ] = None,
    imports: Annotated[
        bool, typer.Option("--imports", help="Also import each package, in a child process: takes seconds.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List the checks: what each one reads, and when it applies.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Apply fixes that are safe and can be undone; each is shown first.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="With --fix: show the fixes, and change nothing.")
    ] = False,
    text_: Annotated[
        bool, typer.Option("--text", help="Print a block to paste into an issue, without secrets.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the report to a zip file, without secrets and names of people."
        ),
    ] = None,
) -> CommandOutput:
    """Check that this machine can run the stack.

    With --recipe the check includes what the recipe needs.
    """
    from vimectl.doctor.bundle import Redactor, check_bundle_path, write_bundle
    from vimectl.doctor.machine_summary import as_text, summarize
    from vimectl.doctor.node_report import NOT_ON_NODES
    from vimectl.doctor.nodes import ClusterReport, examine_nodes
    from vimectl.doctor.runner import run_checks
    from vimectl.recipes.resolve import resolve
    from vimectl.stacks.detection import detect_stack

    if bundle:
        check_bundle_path(bundle)
    if assignments and not recipe:
        raise UsageError("--set overrides a key of a recipe, but no recipe is given", "give it with --recipe")
    if address and root:
        raise UsageError("--address is of a running cluster, --root of files", "give one of them")
    host = _host(root, python)
    cluster = ray_address.resolve(host, address) if address else None
    wanted = resolve(recipe, assignments=assignments).recipe if recipe else None
    default = stack_for_recipe(wanted.recipe.stack) if wanted and not stack else default_stack()
    name = stack or default or detect_stack(host).stack
    if name is None:
        raise UsageError("no package of a known stack is installed", "give the stack you want with --stack")
    chosen = load_stack(name)
    if wanted and wanted.cluster.device != chosen.stack.device:
        raise UsageError(
            f"the recipe {wanted.recipe.name} is for {wanted.cluster.device}, the stack {chosen.name} for "
            f"{chosen.stack.device}",
            f"leave out --stack, or give one like {wanted.recipe.stack}",
        )
    if list_:
        return check_list(chosen, only or ())

    def check() -> DoctorReport:
        without = NOT_ON_NODES if cluster else ()
        found = run_checks(host, chosen, wanted, only or (), imports, without)
        return examine_nodes(found, cluster, wanted, only or (), imports) if cluster else found

    report = check()
    fixes = _apply_fixes(report, host, dry_run) if fix else []
    if fixes and not dry_run:
        report = check()
    document, text = report.as_json(), list(report_text(report, every=err.level == VERBOSE or bool(only)))
    document["facts"] = summarize(report.facts)
    lines = [one_line(line) for line in report.lines()] if isinstance(report, ClusterReport) else []
    text[-1:-1] = [Markup(escape_markup(line)) for line in lines]  # the last line says what to do
    if text_:
        redact = Redactor(host).text
        block = [*as_text(document["facts"], report, redact).splitlines(), *map(redact, lines)]
        text = [Markup(escape_markup(line)) for line in block]
    if fix:
        document["fixed"] = [
            {"check": one.check, "command": one.command, "undo": one.undo, "changed": one.changes}
            for one in fixes
        ]
        document["dry_run"] = dry_run
    if bundle:
        plain = "".join(f"{line.plain}\n" for line in text)
        document["bundle"] = {"path": bundle, "files": write_bundle(bundle, report, plain, Redactor(host))}
        text.append(Markup(escape_markup(f"{bundle}: check its content before you share it")))
    return CommandOutput(document, text, 0 if report.ok else 1)


def _host(root: Path | None, python: str | None) -> Host:
    if root is None:
        return Host(given_python=os.path.abspath(python) if python else None)
    if not root.is_dir():
        raise UsageError(
            f"{root}: no such directory", "give the root of an unpacked image or a mounted container"
        )
    # Nothing runs in another root, and it has no environment.
    return Host(root.resolve(), {}, refuse_command, python)


def _apply_fixes(report: DoctorReport, host: Host, dry_run: bool) -> list[Fix]:
    """Show what will be changed and how to revert it, then change it unless it is a dry run."""
    from vimectl.doctor.fix import plan_fixes

    fixes = plan_fixes(report, host)
    if not fixes and not report.ok:
        err.note("--fix cannot fix any of these; it only makes changes it can undo")
    for fix in fixes:
        err.note(f"{'would fix' if dry_run else 'fixing'} {fix.check}: {fix.command}")
        for path in fix.changes:
            err.note(f"    changes {path}")
        err.note(f"    to undo it: {fix.undo}")
        if not dry_run:
            fix.apply()
    return fixes
