"""Build the commands with Typer and run one of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vime_runtime.spec.errors import INTERRUPTED, UsageError

from vimectl import __version__
from vimectl.util.console import report_error

if TYPE_CHECKING:
    from vimectl.cli.output import CommandOutput

# Newer releases of Typer contain a copy of click, older ones use the installed click. The base class of a
# public exception is the right one in both.
USAGE_ERROR: Any = typer.BadParameter.__base__

_COMMANDS = ("init", "doctor", "stack", "env", "patch", "tms", "image", "recipe", "run", "runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vimectl {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Set up and run GRPO training on Ascend NPUs: pinned versions, source patches you can revert, a doctor,
    and a launcher.
    """


def command_tree(argv: Sequence[str] = ()) -> Any:
    """Return the command that ``argv`` calls below its groups, or all commands for help and completion."""

    def print_output(output: CommandOutput, **options: Any) -> int:
        # Called by Typer, which exits quietly when the reader has closed the pipe.
        output.print(command_name(tree, argv), "--json" in argv)
        sys.stdout.flush()
        return output.exit_code

    # The command is the first word that is not an option. Only these options can come before it.
    words = [word for word in argv if word not in ("--debug", "--json", "--version")]
    called = [name for name in _COMMANDS if words[:1] == [name]]
    app = typer.Typer(
        name="vimectl",
        no_args_is_help=True,
        add_completion=not called,  # its two options have no command
        pretty_exceptions_enable=False,
        result_callback=print_output,
    )
    app.callback()(_root)
    for name in () if argv[:1] == ["--version"] else called or _COMMANDS:
        module = importlib.import_module(f"vimectl.cli.{name}")
        if name in ("doctor", "init"):  # commands, not groups
            app.command(name)(getattr(module, name))
        else:
            app.add_typer(_called_commands(module.app, words[1:2]), name=name)
    tree: Any = typer.main.get_command(app)
    option = next(option for option in tree.params if option.name == "json")
    option.expose_value = False
    _add_option(tree, option)
    return tree


def _called_commands(group: typer.Typer, called: list[str]) -> typer.Typer:
    """Return a group with the called command alone, or the whole group for help and unknown commands.

    Typer evaluates the signature of every command that it is given: 8 ms for the ten of `vimectl patch`.
    """
    commands = [
        command
        for command in group.registered_commands
        if [command.name or getattr(command.callback, "__name__", "")] == called
    ]
    if commands:
        group = copy(group)
        group.registered_commands = commands
    return group


def _add_option(group: Any, option: Any) -> None:
    """Add an option to every command below a group."""
    for command in group.commands.values():
        if hasattr(command, "commands"):
            _add_option(command, option)
        else:
            command.params.append(option)


def run_typer(argv: list[str]) -> int:
    """Run one command line and return its exit code. Raises the errors of the command."""
    root = command_tree(argv)
    try:
        return int(root.main(args=argv, prog_name="vimectl", standalone_mode=False))
    except typer.Abort:
        return INTERRUPTED
    except USAGE_ERROR as e:
        if "--json" in argv:
            report_error(UsageError(e.format_message(), "see --help"), command_name(root, argv), True)
        else:
            e.show()
        return 2


def command_name(root: Any, argv: Sequence[str]) -> str:
    """Return the command of a command line as in the JSON schema's name: ``patch.status``."""
    names = []
    for word in argv:
        if word in getattr(root, "commands", {}):
            names.append(word)
            root = root.commands[word]
    return ".".join(names) or "vimectl"
