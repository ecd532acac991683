"""`vimectl patch lint`: check patch files, and repair what has one right answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.cli import complete
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.phase_progress import show_phases

if TYPE_CHECKING:
    from vimectl.patches.lint.linter import LintReport


class LintFormat(str, Enum):
    """How findings are printed: for people, or as workflow commands that GitHub shows in the diff."""

    text = "text"
    github = "github"


def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE|DIR...",
            help="Patches, mailboxes, folders of patches, or quilt series.",
            show_default=False,
        ),
    ] = None,
    strip: Annotated[
        int | None,
        typer.Option("-p", metavar="N", min=0, help="Strip N leading folders from names; by default as git."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|WHEEL|PACKAGE==VERSION",
            help="Show how each hunk fits this release: exact, offset, fuzz, applied, does-not-apply.",
            autocompletion=complete.releases,
        ),
    ] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair counts, chopped ends, the last newline and line endings.")
    ] = False,
    form: Annotated[LintFormat, typer.Option("--format", help="Text, or GitHub's workflow commands.")] = (
        LintFormat.text
    ),
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and what they mean.")] = False,
) -> CommandOutput:
    """Find the problems of patch files, with line numbers.

    The patches of a folder, mailbox or series are checked in their order,
    each on top of those before it. In a folder without patches, the series
    in the folders below it are checked. Errors, which make the exit code 1, are
    what cannot or must not be applied; the rest are warnings.
    """
    if rules:
        return _list_rules()
    if not files:
        raise typer.BadParameter("name at least one patch file")
    from vimectl.patches.lint import linter
    from vimectl.patches.release_files import open_release

    with show_phases() as progress:
        release = open_release(against, progress) if against else None
        reports = linter.lint(files, release, strip, fix)
    as_lines = _workflow_commands if form is LintFormat.github else _report_lines
    text = (line for one in reports for line in as_lines(one))
    ok = all(one.ok for one in reports)
    return CommandOutput({"files": [one.as_json() for one in reports]}, text, 0 if ok else 1)


def _report_lines(report: LintReport) -> Iterator[str]:
    for fix in report.fixed:
        yield f"{report.path}:{fix.line}: fixed: {fix.rule}: {fix.message}"
    for finding in report.findings:
        yield f"{report.path}:{finding.line}: {finding.severity}: {finding.rule}: {finding.message}"
    fits = Counter(hunk.result for hunk in report.hunks)
    counts = ", ".join(f"{number} {result}" for result, number in fits.most_common())
    verdict = "ok" if report.ok else "not ok"
    yield f"{report.path}: {verdict}{f' ({counts})' if counts else ''}"


def _workflow_commands(report: LintReport) -> Iterator[str]:
    """Yield the commands that make GitHub annotate the lines of a pull request."""
    for finding in report.findings:
        where = f"file={_escaped(str(report.path), True)},line={finding.line},title={finding.rule}"
        yield f"::{finding.severity} {where}::{_escaped(finding.message)}"


def _escaped(text: str, is_property: bool = False) -> str:
    for character in "%\r\n" + ":," * is_property:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _list_rules() -> CommandOutput:
    from vimectl.patches.patchfile.rules import lint_rules

    rules = lint_rules()
    rows = [[name, rule.severity, rule.meaning] for name, rule in rules.items()]
    table = TextTable(["rule", "severity", "what is wrong"], rows)
    return CommandOutput({"rules": {name: rule._asdict() for name, rule in rules.items()}}, [table])
