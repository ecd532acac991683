"""The options that several patch commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Packages = Annotated[
    list[str] | None, typer.Argument(metavar="PACKAGE", help="Only these packages.", show_default=False)
]
StackOption = Annotated[
    str | None,
    typer.Option(
        "--stack",
        metavar="NAME|FILE",
        help="A stack or a project file; by default the vimectl.toml here or above, or the stack installed.",
    ),
]
SeriesOption = Annotated[
    Path | None,
    typer.Option("--series", metavar="DIR", help="A series to use instead of those of the stack."),
]
TargetOption = Annotated[
    Path | None,
    typer.Option(
        "--target",
        metavar="DIR",
        envvar="VIMECTL_TARGET",
        help="Directory that holds the packages; a wheel for commands that only read.",
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option("--version", metavar="V", help="The package's version, if the package does not state it."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", "-n", help="Print the changes without making them.")]
