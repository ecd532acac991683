"""The options that several patch commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from vimectl.patches.path_rules import PathRule


def complete_package(incomplete: str) -> list[str]:
    """Complete the packages of the stack or project, for the shell."""
    from vimectl.patches import series
    from vimectl.stacks.catalog import default_stack, load_summary

    stack = default_stack()
    packages = load_summary(stack).patches if stack else series.known()
    return [name for name in packages if name.startswith(incomplete)]


def complete_patch(incomplete: str) -> list[str]:
    """Complete the patches in the series directories of the project, for the shell."""
    from vimectl.patches import series
    from vimectl.stacks.catalog import default_stack, is_series_directory, load_summary

    stack = default_stack()
    entries = load_summary(stack).patches.values() if stack else ()
    tops = (entry[-1] for entry in entries if entry and is_series_directory(entry[-1]))
    names = (patch.id for top in tops for patch in series.read(Path(top)).patches)
    return [name for name in names if name.startswith(incomplete)]


Packages = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PACKAGE",
        help="Only these packages.",
        show_default=False,
        autocompletion=complete_package,
    ),
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
IncludeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Take only these files. The first rule that matches counts."),
]
ExcludeOption = Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Leave these files out.")]


class InOrder(TyperCommand):
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
