"""`vimectl runs report`: the page about a run, made anew at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vimectl.util.console import JsonOption, emit_json, out


def report(
    run: Annotated[str, typer.Argument(help="A run's directory, its name in runs/, or `last`.")],
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Where the page goes; report.html of the run when not given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's curves, responses and settings as one HTML page that needs no network."""
    from vime_runtime.spec.errors import UsageError

    from vimectl.runs import catalog
    from vimectl.runs import report as reports

    try:
        page = reports.write(catalog.find(run), out_file)
    except OSError as e:
        raise UsageError(f"the page cannot be written: {e}", "name another place with --out FILE") from e
    if as_json:
        emit_json("runs.report", True, path=page.absolute())
    else:
        out.print(str(page), markup=False)
