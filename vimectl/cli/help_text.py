"""The help of a command: examples and exit codes at its end; plain text when piped, rich on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from vime_runtime.spec.errors import INTERRUPTED

from vimectl.util.console import out

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Epilog(str):
    """The end of a command's help.

    Attributes:
        examples: command lines for a shell, each with what it does as a comment: ``vimectl init  # why``.
        exit_codes: what each exit code of the command means.
    """

    examples: tuple[str, ...]
    exit_codes: Mapping[int, str]

    def __new__(cls, examples: tuple[str, ...], exit_codes: Mapping[int, str]) -> Epilog:
        """Return the text with its parts as attributes."""
        codes = [f"{code}  {meaning}" for code, meaning in exit_codes.items()]
        self = super().__new__(cls, "\n\n".join(["Examples:", *examples, "Exit codes:", *codes]))
        self.examples, self.exit_codes = examples, exit_codes
        return self


def epilog(
    *examples: str,
    done: str = "done",
    failed: str = "an unexpected error",
    lacking: str = "the machine lacks something, for example free disk space",
) -> Epilog:
    """Return the examples of a command, and what its exit codes 0, 1 and 3 mean."""
    codes = {0: done, 1: failed, 2: "wrong usage or input", 3: lacking, INTERRUPTED: "interrupted"}
    return Epilog(examples, codes)


def _format_epilog(epilog: Epilog, formatter: Any) -> None:
    with formatter.section("Examples"):
        for example in epilog.examples:  # not wrapped: they are copied
            formatter.write(f"{'':{formatter.current_indent}}{example}\n")
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), meaning) for code, meaning in epilog.exit_codes.items()])


def _print_epilog(epilog: Epilog) -> None:
    from rich.text import Text

    out.print(Text(" Examples", "bold"))
    for example in epilog.examples:
        command, _, comment = example.partition("  # ")
        text = Text.assemble(f"   {command}", *([(f"  # {comment}", "dim")] if comment else []))
        out.console.print(text, soft_wrap=True)  # copied as one line
    out.print(Text("\n Exit codes", "bold"))
    for code, meaning in epilog.exit_codes.items():
        out.print(Text.assemble("   ", (f"{code:<4}", "cyan"), meaning))


class _Help:
    """Help in the style for the stream: mixed into the classes of commands and groups."""

    epilog: str | None
    rich_markup_mode: Any

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help of a command."""
        if not out.is_terminal:
            self.rich_markup_mode = None
            super().format_help(ctx, formatter)  # type: ignore[misc]
            return
        end, self.epilog, self.rich_markup_mode = self.epilog, None, "rich"
        super().format_help(ctx, formatter)  # type: ignore[misc]
        self.epilog = end
        if isinstance(end, Epilog):
            _print_epilog(end)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, without the braces of Typer 0.28 around required arguments."""
        pieces: list[str] = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [piece[1:-1] if piece.startswith("{") else piece for piece in pieces]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the end of the plain help."""
        if isinstance(self.epilog, Epilog):
            _format_epilog(self.epilog, formatter)


class HelpCommand(_Help, TyperCommand):
    """A command whose help ends with examples and exit codes."""


class HelpGroup(_Help, TyperGroup):
    """A group of commands; its help is that of ``HelpCommand``."""


class CommandGroup(typer.Typer):
    """A group to which commands are added; `vimectl GROUP` alone prints its help."""

    def __init__(self, **options: Any) -> None:
        """Make a group with the options of Typer."""
        options.setdefault("cls", HelpGroup)
        super().__init__(no_args_is_help=True, **options)

    def command(self, *args: Any, **options: Any) -> Callable[..., Any]:
        """Add a function as a command, as Typer does."""
        options.setdefault("cls", HelpCommand)
        return super().command(*args, **options)
