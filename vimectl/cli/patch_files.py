"""`vimectl patch lint | import | export`: check patch files and convert series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.cli.download_progress import download_progress
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.patches import series as series_files

if TYPE_CHECKING:
    from vimectl.patches.lint.linter import LintReport


def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE...", help="Patch files, or folders of them.", show_default=False),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|WHEEL|PACKAGE==VERSION",
            help="Show how each hunk fits this release: exact, offset, fuzz, applied, does-not-apply.",
        ),
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules and what they mean.")] = False,
) -> CommandOutput:
    """Find the problems of patch files, with line numbers.

    A patch in the folder of a series is compared with its series.toml, and
    with the release as the patches before it leave it. Errors make the exit
    code 1; warnings do not.
    """
    if rules:
        return _list_rules()
    if not files:
        raise typer.BadParameter("name at least one patch file")
    from vimectl.patches.lint import linter

    paths = linter.patches_in(files)
    with download_progress() as progress:
        release = linter.open_release(against, progress) if against else None
        reports = [linter.lint(path, release) for path in paths]
    text = (line for one in reports for line in _report_lines(one))
    ok = all(one.ok for one in reports)
    return CommandOutput({"files": [one.as_json() for one in reports]}, text, 0 if ok else 1)


def _report_lines(report: LintReport) -> Iterator[str]:
    for finding in report.findings:
        yield f"{report.path}:{finding.line}: {finding.severity}: {finding.rule}: {finding.message}"
    fits = Counter(hunk.result for hunk in report.hunks)
    counts = ", ".join(f"{number} {result}" for result, number in fits.most_common())
    verdict = "ok" if report.ok else "not ok"
    yield f"{report.path}: {verdict}{f' ({counts})' if counts else ''}"


def _list_rules() -> CommandOutput:
    from vimectl.patches.patchfile.rules import lint_rules

    rules = lint_rules()
    rows = [[name, rule.severity, rule.meaning] for name, rule in rules.items()]
    table = TextTable(["rule", "severity", "what is wrong"], rows)
    return CommandOutput({"rules": {name: asdict(rule) for name, rule in rules.items()}}, [table])


class ExportFormat(str, Enum):
    """The formats of an exported series."""

    quilt = "quilt"
    mbox = "mbox"


def export(
    package: Annotated[str, typer.Argument(help="The package.")],
    version: Annotated[str, typer.Option(metavar="V", help="The version of the series.")],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="A folder for quilt, or a mailbox for git am.")
    ],
    target: Annotated[Path, typer.Option("--out", metavar="DIR|FILE", help="The output; must not exist.")],
    series: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The series, if vimectl does not ship it.")
    ] = None,
) -> CommandOutput:
    """Write a series as a quilt series, or as a mailbox for `git am --keep-cr`."""
    from vimectl.patches.interchange.exporters import export_series

    chosen = series_files.find(package, version, series)
    written = export_series(chosen, form.value, target)
    ids = [patch.id for patch in chosen.patch]
    how = "git am --keep-cr" if form is ExportFormat.mbox else "QUILT_PATCHES=DIR quilt push -a"
    return CommandOutput(
        {"package": package, "version": version, "patches": ids, "written": written},
        [f"{package} {version}: {len(ids)} patches written to {target}", f"to apply them: {how}"],
    )


def import_(
    path: Annotated[Path, typer.Argument(help="A patch, a mailbox, a folder of patches, or a quilt series.")],
    package: Annotated[str, typer.Option(help="The package that is patched.")],
    version: Annotated[str, typer.Option(metavar="V", help="The release that the series is for.")],
    target: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder of the series; must not exist.")
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="PATH|WHEEL|PACKAGE==VERSION", help="The release, if pip does not find it."),
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="The folder of the package that its patches change.")
    ] = None,
) -> CommandOutput:
    """Import `git format-patch` output, a mailbox, a plain diff or a quilt series as a series.

    Each patch is applied to the release, so that blob ids and line numbers are those of the release.
    """
    from vimectl.patches.interchange.importers import import_series
    from vimectl.patches.lint.linter import open_release

    with download_progress() as progress:
        release = open_release(against or f"{package}=={version}", progress)
        imported = import_series(path, package, version, release, target, module)
    text = []
    for one in imported:
        moved = f" ({one.offsets} hunks at another line)" if one.offsets else ""
        text.append(f"{one.id}: {', '.join(one.changes)}{moved}")
    text.append(f"{package} {version}: written to {target}")
    return CommandOutput({"patches": [one.as_json() for one in imported], "written": target}, text)
