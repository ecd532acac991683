"""`vimectl patch export` and `vimectl patch import`: a series in other forms, and other forms as a series."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from vimectl.util.console import JsonOption, emit_json, out


class Form(str, Enum):
    """What a series can be exported as."""

    quilt = "quilt"
    mbox = "mbox"


def export(
    package: Annotated[str, typer.Argument(help="The package.")],
    version: Annotated[str, typer.Option(metavar="V", help="The version whose series is meant.")],
    form: Annotated[Form, typer.Option("--format", help="A folder for quilt, or a mailbox for git am.")],
    target: Annotated[Path, typer.Option("--out", metavar="DIR|FILE", help="Where it goes; must be new.")],
    series: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The series, when it is none of vimectl's own.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a series as a quilt series, or as a mailbox that `git am --keep-cr` takes."""
    from vimectl.patches import catalog, interchange

    chosen = catalog.find(package, version, series)
    written = interchange.export(chosen, form.value, target)
    if as_json:
        patches = [patch.id for patch in chosen.patch]
        emit_json("patch.export", True, package=package, version=version, patches=patches, written=written)
        return
    out.print(f"{package} {version}: {len(chosen.patch)} patches written to {target}", markup=False)
    how = "git am --keep-cr" if form is Form.mbox else "QUILT_PATCHES=DIR quilt push -a"
    out.print(f"to apply them: {how}", markup=False)


def import_(
    path: Annotated[Path, typer.Argument(help="A patch, a mailbox, a folder of patches, or a quilt series.")],
    package: Annotated[str, typer.Option(help="The package that is patched.")],
    version: Annotated[str, typer.Option(metavar="V", help="The release that the series is for.")],
    target: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the series goes; must be new.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|WHEEL|PACKAGE==VERSION", help="The release, when pip does not find it by itself."
        ),
    ] = None,
    module: Annotated[
        str | None, typer.Option(help="The folder by which the package is recognised in a target.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a series of `git format-patch` output, a mailbox, a plain diff or a quilt series.

    Each patch is applied to the release, so that blob ids and line numbers are those of the release.
    """
    from vimectl.cli.fetching import fetching
    from vimectl.patches import interchange
    from vimectl.patches import lint as linter

    with fetching() as report:
        sources = linter.sources_of(against or f"{package}=={version}", report)
        taken = interchange.take(path, package, version, sources, target, module)
    if as_json:
        emit_json("patch.import", True, patches=[one.as_json() for one in taken], written=target)
        return
    for one in taken:
        moved = f" ({one.offsets} hunks lay elsewhere)" if one.offsets else ""
        out.print(f"{one.id}: {', '.join(one.changes)}{moved}", markup=False)
    out.print(f"{package} {version}: written to {target}", markup=False)
