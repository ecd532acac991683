"""`vimectl doctor`: can this machine run the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.console import JsonOption, emit_json, out

if TYPE_CHECKING:
    from vimectl.doctor import Finding, Report
    from vimectl.host import Host

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


def doctor(
    stack: Annotated[
        str | None, typer.Option(help="The stack; by default the recipe's, else the one installed.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="A recipe's name or file: what must be possible.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Examine another root file system.")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this check or group.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine can run the stack, and the recipe when one is named; exit 1 if it cannot."""
    from vimectl import stack as stacks
    from vimectl.doctor import run_checks
    from vimectl.errors import BadInput
    from vimectl.recipe.resolve import resolve

    host = _host(root)
    wanted = resolve(recipe).recipe if recipe else None
    name = stack or (wanted.recipe.stack if wanted else stacks.detect(host).stack)
    if name is None:
        raise BadInput("nothing of any known stack is installed", "name the stack you want with --stack")
    report = run_checks(host, stacks.load(name), wanted, only or ())
    if as_json:
        emit_json("doctor", report.ok, **report.as_json())
    else:
        _show(report)
    raise typer.Exit(0 if report.ok else 1)


def _host(root: Path | None) -> Host:
    from vimectl.errors import BadInput
    from vimectl.host import Host, not_run

    if root is None:
        return Host()
    if not root.is_dir():
        raise BadInput(
            f"{root}: no such directory", "give the root of an unpacked image or a mounted container"
        )
    # Nothing can be run in a file system that is only looked at, and it has no environment.
    return Host(root.resolve(), {}, not_run)


def _show(report: Report) -> None:
    groups: dict[str, list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault(finding.group, []).append(finding)
    for group, findings in groups.items():
        wrong = [finding for finding in findings if finding.status in ("warn", "fail")]
        counted = ", ".join(
            f"{sum(f.status == status for f in findings)} {word}"
            for status, word in (
                ("pass", "well"),
                ("warn", "to note"),
                ("fail", "wrong"),
                ("skip", "not examined"),
            )
            if any(f.status == status for f in findings)
        )
        worst = next(s for s in ("fail", "warn", "pass", "skip") if any(f.status == s for f in findings))
        out.print(f"[{_COLOURS[worst]}]{worst:4}[/]  {group}: {counted}")
        for finding in wrong:
            _show_finding(finding)
    first = report.first
    if first is None:
        out.print(f"{report.stack}: all is well")
    else:
        out.print(f"[bold]first:[/] {_plain(first.fix)}")


def _show_finding(finding: Finding) -> None:
    out.print(f"      [{_COLOURS[finding.status]}]{finding.status}[/] {finding.id}")
    for label, text in (
        ("found", finding.found),
        ("needed", finding.expected),
        ("why", finding.why),
        ("mend", finding.fix),
    ):
        if text:
            out.print(f"           {label}: {_plain(text)}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
