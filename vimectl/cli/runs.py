"""`vimectl runs`: what can be done with runs, whether they still go on or have ended."""

from __future__ import annotations

import typer

from vimectl.cli.report import report

app = typer.Typer(no_args_is_help=True, help="Look at runs that go on or have ended.")


@app.callback()
def _group() -> None:
    """Look at runs that go on or have ended."""


app.command("report")(report)
