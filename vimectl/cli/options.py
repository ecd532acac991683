"""The arguments and options that several command groups share, each with one meaning everywhere."""

from __future__ import annotations

from typing import Annotated

import typer

from vimectl.cli import complete

# Options of every command that take no value.
SWITCHES = ("--debug", "--json", "--version", "--verbose", "-v", "--quiet", "-q")


def stack_option(help: str) -> object:
    """Return the option --stack; ``help`` says which stack is the default."""
    return typer.Option(
        "--stack", metavar="NAME|FILE", help=help, show_default=False, autocompletion=complete.stacks
    )


ProjectStack = Annotated[
    str | None, stack_option("A stack's name, or the path of a stack file; by default the project's.")
]
AnyStack = Annotated[
    str | None, stack_option("The stack; by default the project's, the recipe's or the installed one.")
]
RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe's name, or the path of its file.", autocompletion=complete.recipes
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the recipe, for example model.path=DIR.",
        autocompletion=complete.assignments,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Print what would be done, and change nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer yes to every question.")]


def recipe_option(help: str) -> object:
    """Return the option --recipe; ``help`` says what the command does with it."""
    return typer.Option("--recipe", metavar="RECIPE", help=help, autocompletion=complete.recipes)


def address_option(help: str) -> object:
    """Return the option --address; ``help`` says what the command does with the Ray cluster there."""
    return typer.Option("--address", metavar="HOST:PORT|auto", help=help, autocompletion=complete.addresses)
