"""`vimectl patch port`: port a series to another release."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.cli import complete
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.console import err

if TYPE_CHECKING:
    from vimectl.patches.port.command import PortOutcome


def port(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="The package.", autocompletion=complete.series_packages)
    ],
    new: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="V2",
            help="The version to port to, newest, or a commit of a work tree.",
            autocompletion=complete.releases_to_port_to,
        ),
    ],
    old: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="V1",
            help="The version or commit that the series is for, unless --series states it.",
            autocompletion=complete.series_versions,
        ),
    ] = "",
    source: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A release as folder, git work tree, wheel or source archive instead of pip's; if given "
            "twice, the old one first.",
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The folder of the new series; by default PACKAGE-V2."),
    ] = None,
    resolved: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Continue with the conflicts that you resolved in this folder."),
    ] = None,
    series: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The series to port, if it is not one of vimectl's own."),
    ] = None,
) -> CommandOutput:
    """Port a series to another release.

    It uses three-way merges and leaves out the changes that upstream has.
    Only the files that the series touches are downloaded, if the index allows
    it.

    Conflicts are written to DIR.conflicts with conflict markers; its README.txt explains how to continue.
    """
    from vimectl.patches.port.command import port_series

    outcome = port_series(package, old, new, source or (), directory, resolved, series)
    document = {
        "package": package,
        "from": outcome.old,
        "to": outcome.new,
        "patches": [patch.as_json() for patch in outcome.patches],
        "written": outcome.written,
        "conflicts": outcome.conflicts,
    }
    return CommandOutput(document, _port_text(outcome), 0 if outcome.conflicts is None else 1)


def _port_text(outcome: PortOutcome) -> Iterator[str | TextTable]:
    """Yield what became of the patches; what is left to do is printed on stderr."""
    yield TextTable(["patch", "result", "why"], list(_port_rows(outcome)))
    if outcome.written:
        yield f"{outcome.package} {outcome.new}: written to {outcome.written}"
        written = outcome.written.as_posix()
        err.note(f"apply it: vimectl patch apply --series {shlex.quote(written)}")
        entry = f'{outcome.package} = ["{written}"]'
        err.note(f"or list it in vimectl.toml under [patches]: {entry}")
        for patch in outcome.patches:
            if not patch.left_out and any(file.note for file in patch.files):
                err.note(f"check that the header of {patch.id} still describes it")
        return
    err.print(f"conflicts: edit the files in {outcome.conflicts}, see its README.txt, then")
    err.print(f"  {outcome.command}")


def _port_rows(outcome: PortOutcome) -> Iterator[list[str]]:
    for patch in outcome.patches:
        yield [patch.id, patch.result, f"left out: {patch.left_out}" if patch.left_out else ""]
        for file in patch.files:
            yield [f"  {file.path}", file.result, file.note]
