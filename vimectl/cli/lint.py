"""`vimectl patch lint`: what is wrong with patch files, at which line."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.util.console import JsonOption, emit_json, out, table

if TYPE_CHECKING:
    from vimectl.patches.lint import FileReport


def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Patch files, or folders of them.", show_default=False),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|WHEEL|PACKAGE==VERSION",
            help="Say for each hunk how it fits this release: exact, offset, fuzz, applied, does-not-apply.",
        ),
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and what they mean.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Find what is wrong with patch files, ours or anyone's, and at which line.

    A patch in the folder of a series is compared with its series.toml, and
    with the release as the patches before it leave it. Errors make the exit
    code 1; warnings do not.
    """
    if rules:
        _rules(as_json)
        return
    if not files:
        raise typer.BadParameter("name at least one patch file")
    from vimectl.cli.fetching import fetching
    from vimectl.patches import lint as linter

    paths = linter.patches_in(files)
    with fetching() as report:
        sources = linter.sources_of(against, report) if against else None
        reports = [linter.lint(path, sources) for path in paths]
    ok = all(one.ok for one in reports)
    if as_json:
        emit_json("patch.lint", ok, files=[one.as_json() for one in reports])
    else:
        for one in reports:
            _print(one)
    if not ok:
        raise typer.Exit(1)


def _print(report: FileReport) -> None:
    for finding in report.findings:
        where = f"{report.path}:{finding.line}"
        out.print(f"{where}: {finding.severity}: {finding.rule}: {finding.message}", markup=False)
    fits = Counter(hunk.result for hunk in report.hunks)
    counted = ", ".join(f"{number} {result}" for result, number in fits.most_common())
    verdict = "ok" if report.ok else "not ok"
    out.print(f"{report.path}: {verdict}{f' ({counted})' if counted else ''}", markup=False)


def _rules(as_json: bool) -> None:
    from vimectl.patches.patchfile import rules

    known = rules.known()
    if as_json:
        emit_json("patch.lint", True, rules={name: asdict(rule) for name, rule in known.items()})
    else:
        table(
            "", ["rule", "severity", "what is wrong"], [[n, r.severity, r.meaning] for n, r in known.items()]
        )
