"""`vimectl patch port`: carry a series over to another release of its package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.util.console import JsonOption, emit_json, err, out, table

if TYPE_CHECKING:
    from vimectl.patches.port import Outcome


def _packages(incomplete: str) -> list[str]:
    from vimectl.patches import series

    return [name for name in series.known() if name.startswith(incomplete)]


def _versions(context: typer.Context, incomplete: str) -> list[str]:
    from vimectl.patches import series

    # An option without its value yet keeps the arguments before it from being parsed.
    package = context.params.get("package") or next(iter(context.args), "")
    found = series.known().get(package, [])
    return [version for version in found if version.startswith(incomplete)]


def port(
    package: Annotated[str, typer.Argument(help="The package.", autocompletion=_packages)],
    old: Annotated[
        str,
        typer.Option("--from", metavar="V1", help="The version that has a series.", autocompletion=_versions),
    ],
    new: Annotated[
        str, typer.Option("--to", metavar="V2", help="The version that is to get one, or newest.")
    ],
    source: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A release as folder, wheel or source archive instead of where pip would find it; "
            "given twice, the old one first.",
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the new series goes; by default PACKAGE-V2 here."),
    ] = None,
    resolved: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Go on with the conflicts of an earlier call, edited in this folder."
        ),
    ] = None,
    series: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The series to port, when it is none of vimectl's own.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Carry a series over to another release: merged file by file, without what upstream has taken.

    Of both releases only the files that the series touches are fetched, where the index allows it.

    Conflicts go into DIR.conflicts as ordinary conflict markers; its README.txt says how to go on.
    """
    from vimectl.cli.fetching import fetching
    from vimectl.patches.port import port as carry_over

    with fetching() as report:
        outcome = carry_over(package, old, new, source or (), directory, resolved, series, report)
    ok = outcome.conflicts is None
    if as_json:
        emit_json(
            "patch.port",
            ok,
            package=package,
            **{"from": old, "to": outcome.new},
            patches=[patch.as_json() for patch in outcome.patches],
            written=outcome.written,
            conflicts=outcome.conflicts,
        )
    else:
        table("", ["patch", "result", "why"], list(_rows(outcome)))
        _print_end(outcome)
    if not ok:
        raise typer.Exit(1)


def _rows(outcome: Outcome) -> Iterator[list[str]]:
    for patch in outcome.patches:
        yield [patch.id, patch.result, f"left out: {patch.left_out}" if patch.left_out else ""]
        for file in patch.files:
            moved = {hunk.moved for hunk in file.hunks if hunk.result == "offset" and hunk.moved}
            lines = f"moved by {', '.join(f'{n:+}' for n in sorted(moved))} lines" if moved else ""
            yield [f"  {file.path}", file.result, "; ".join(word for word in (file.note, lines) if word)]


def _print_end(outcome: Outcome) -> None:
    if outcome.written:
        out.print(f"{outcome.package} {outcome.new}: written to {outcome.written}", markup=False)
        for patch in outcome.patches:
            if patch.is_partly_left_out:
                err.print(f"see whether the header of {patch.id} speaks of what was left out", markup=False)
        return
    err.print(f"conflicts: edit the files in {outcome.conflicts}, see its README.txt, then", markup=False)
    err.print(f"  {outcome.again}", markup=False)
