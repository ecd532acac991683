"""`vimectl doctor`: can this machine run the recipe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from vimectl.util.console import JsonOption, emit_json, err, out

if TYPE_CHECKING:
    from vimectl.doctor import Finding, Report
    from vimectl.doctor.repair import Repair
    from vimectl.util.host import Host

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "dim"}
_WORDS = {"pass": "well", "warn": "to note", "fail": "wrong", "skip": "not examined"}


def doctor(
    stack: Annotated[
        str | None, typer.Option(help="The stack; by default the recipe's, else the one installed.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name or file: what must be possible.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Examine another root file system.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this check or group.")] = None,
    imports: Annotated[
        bool, typer.Option("--imports", help="Import each package too, in a child process: takes seconds.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend what is safe to mend and can be taken back; shown first.")
    ] = False,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the findings to a zip file, secrets and names of people removed."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine can run the stack, and the recipe when one is named; exit 1 if it cannot."""
    from vime_runtime.spec.errors import UsageError

    from vimectl.doctor import bundle as bundles
    from vimectl.doctor import run_checks
    from vimectl.recipes.resolve import resolve
    from vimectl.stacks.catalog import load_stack
    from vimectl.stacks.detection import detect_stack

    if bundle:
        bundles.refuse(bundle)
    if assignments and not recipe:
        raise UsageError("--set overrides a key of a recipe, and none is named", "name it with --recipe")
    host = _host(root)
    wanted = resolve(recipe, assignments=assignments).recipe if recipe else None
    name = stack or (wanted.recipe.stack if wanted else detect_stack(host).stack)
    if name is None:
        raise UsageError("nothing of any known stack is installed", "name the stack you want with --stack")

    def examine() -> Report:
        return run_checks(host, load_stack(name), wanted, only or (), with_imports=imports)

    report = examine()
    made = _mend(report, host) if fix else []
    if made:
        report = examine()
    text = io.StringIO()
    _show(report, Console(file=text, highlight=False, soft_wrap=True, no_color=True), every=bool(only))
    extra: dict[str, Any] = {"fixed": [_as_json(repair) for repair in made]} if fix else {}
    if bundle:
        extra["bundle"] = {
            "path": bundle,
            "files": bundles.write(bundle, report, text.getvalue(), host, wanted),
        }
    if as_json:
        emit_json("doctor", report.ok, **report.as_json(), **extra)
    else:
        _show(report, out.console, every=bool(only))
        if bundle:
            out.print(f"{bundle}: look through it before you give it away", markup=False)
    raise typer.Exit(0 if report.ok else 1)


def _host(root: Path | None) -> Host:
    from vime_runtime.spec.errors import UsageError

    from vimectl.util.host import Host, refuse_command

    if root is None:
        return Host()
    if not root.is_dir():
        raise UsageError(
            f"{root}: no such directory", "give the root of an unpacked image or a mounted container"
        )
    # Nothing can be run in a file system that is only looked at, and it has no environment.
    return Host(root.resolve(), {}, refuse_command)


def _mend(report: Report, host: Host) -> list[Repair]:
    """Show what is going to be changed, change it, and say how to take it back."""
    from vimectl.doctor.repair import repairs

    found = repairs(report, host)
    if not found and not report.ok:
        err.print("nothing of it can be mended by --fix: that makes only what it can take back")
    for repair in found:
        err.print(f"mending {repair.mends}: {repair.command}", markup=False)
        for path in repair.changes:
            err.print(f"    changes {path}", markup=False)
        err.print(f"    to take it back: {repair.undo}", markup=False)
        repair.make()
    return found


def _as_json(repair: Repair) -> dict[str, Any]:
    return {
        "check": repair.mends,
        "command": repair.command,
        "undo": repair.undo,
        "changed": repair.changes,
    }


def _show(report: Report, to: Console, every: bool) -> None:
    """One line for each group that is well, and what is not well in full; ``every`` shows all in full."""
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault(finding.group, []).append(finding)
    unseen = [name for name, its in groups.items() if not every and all(f.status == "skip" for f in its)]
    for group, findings in groups.items():
        if group not in unseen:
            _show_group(group, findings, to, every)
    if unseen:
        total = sum(len(groups[name]) for name in unseen)
        to.print(f"[{_COLOURS['skip']}]skip[/]  {', '.join(unseen)}: {total} {_WORDS['skip']}")
    to.print(f"[bold]{_plain(_last_line(report))}[/]")


def _show_group(group: str, findings: list[Finding], to: Console, every: bool) -> None:
    counts = {status: sum(finding.status == status for finding in findings) for status in _WORDS}
    counted = ", ".join(f"{counts[status]} {word}" for status, word in _WORDS.items() if counts[status])
    worst = next(status for status in ("fail", "warn", "pass", "skip") if counts[status])
    to.print(f"[{_COLOURS[worst]}]{worst:4}[/]  {group}: {counted}")
    for finding in findings:
        if every or finding.status in ("warn", "fail"):
            _show_finding(finding, to)


def _last_line(report: Report) -> str:
    """What to do first."""
    first = report.first
    if first is None:
        return f"{report.stack}: all is well"
    if report.ok:
        return f"{report.stack}: nothing stands in the way; worth a look: {first.id}: {first.fix}"
    return f"first: {first.id}: {first.fix}"


def _show_finding(finding: Finding, to: Console) -> None:
    to.print(f"      [{_COLOURS[finding.status]}]{finding.status}[/] {finding.id}")
    for label, text in (
        ("found", finding.found),
        ("needed", finding.expected),
        ("why", finding.why),
        ("mend", finding.fix),
    ):
        if text:
            to.print(f"           {label}: {_plain(text)}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
