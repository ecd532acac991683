"""The options that several patch commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimectl.cli import complete
from vimectl.cli.help_text import HelpCommand
from vimectl.cli.options import stack_option

if TYPE_CHECKING:
    from vimectl.patches.path_rules import PathRule


Packages = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PACKAGE...",
        help="Only these packages.",
        show_default=False,
        autocompletion=complete.packages,
    ),
]
StackOption = Annotated[
    str | None,
    stack_option(
        "A stack or a project file; by default the vimectl.toml here or above, or the stack installed."
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
AgainstOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH|WHEEL|PACKAGE==VERSION",
        help="The release, if pip does not find it.",
        autocompletion=complete.releases,
    ),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Take only these files. The first rule that matches counts."),
]
ExcludeOption = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Leave these files out.")]


class InOrder(HelpCommand):
    """A command that is told the order of its options: click keeps it only among options of one name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta["order"] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


def path_rules(
    context: typer.Context, include: list[str] | None, exclude: list[str] | None
) -> tuple[PathRule, ...]:
    """Return the rules of a command that is ``InOrder``."""
    from vimectl.patches.path_rules import PathRule

    given = {"include": iter(include or ()), "exclude": iter(exclude or ())}
    order = (name for name in context.meta["order"] if name in given)
    return tuple(PathRule(name == "include", next(given[name])) for name in order)
