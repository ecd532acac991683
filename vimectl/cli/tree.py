"""Build the commands with Typer and run one of them."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vime_runtime.spec.errors import INTERRUPTED, UsageError

from vimectl import __version__
from vimectl.cli import completion
from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.options import SWITCHES
from vimectl.util.console import QUIET, VERBOSE, err, out, report_error, visible

if TYPE_CHECKING:
    from vimectl.cli.output import CommandOutput

# Newer releases of Typer contain a copy of click, older ones use the installed click. The base class of a
# public exception is the right one in both.
USAGE_ERROR: Any = typer.BadParameter.__base__

# In the order in which a user needs them.
_COMMANDS = ("stack", "env", "doctor", "recipe", "run", "runs", "init", "patch", "image", "tms")

_EPILOG = epilog(
    "vimectl env create .venv --stack cpu-0.32",
    "vimectl run qwen3-tiny-tp2",
    "vimectl runs show last",
    "vimectl doctor --stack ascend-0.22  # can this machine run it?",
    "vimectl patch status",
    failed="a check failed, a verification found a difference, or an unexpected error",
    lacking="the machine lacks something the command needs: no builder, no device, no disk space",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"vimectl {__version__}")
        raise typer.Exit


def _set_level(level: int) -> Callable[[bool], None]:
    def set_level(wanted: bool) -> None:
        if wanted:
            err.level = level

    return set_level


def _global(*names: str, help: str, **options: Any) -> Any:
    """Return an option that is taken before and after every command."""
    return typer.Option(*names, help=help, rich_help_panel="Global options", **options)


def _root(
    json: Annotated[bool, _global("--json", help="Print one JSON document on stdout.")] = False,
    quiet: Annotated[
        bool,
        _global("--quiet", "-q", callback=_set_level(QUIET), help="Print only the result and errors."),
    ] = False,
    verbose: Annotated[
        bool,
        _global(
            "--verbose",
            "-v",
            callback=_set_level(VERBOSE),
            help="Show results in full, and on stderr the programs that are run.",
        ),
    ] = False,
    debug: Annotated[bool, _global("--debug", help="Show a traceback when something fails.")] = False,
    version: Annotated[
        bool, _global("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up and run GRPO training on Ascend NPUs: pinned versions, source patches you can revert, a doctor,
    and a launcher.
    """


def command_tree(argv: Sequence[str] = ()) -> Any:
    """Return the command that ``argv`` calls below its groups, or all commands for help and completion."""

    def print_output(output: CommandOutput, **options: Any) -> int:
        # Called by Typer, which exits quietly when the reader has closed the pipe.
        output.print(command_name(tree, argv), "--json" in argv)
        out.flush()
        return output.exit_code

    # The command is the first word that is not an option; only these can come before it.
    words = [word for word in argv if word not in SWITCHES]
    called = [name for name in _COMMANDS if words[:1] == [name]]
    if not called:
        completion.use_own_scripts()
    app = CommandGroup(
        name="vimectl",
        add_completion=not called,  # its two options have no command
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        result_callback=print_output,
    )
    app.callback(epilog=_EPILOG)(_root)
    for name in called or _COMMANDS:
        module = importlib.import_module(f"vimectl.cli.{name}")
        if name in ("doctor", "init"):  # commands, not groups
            app.command(name, epilog=module.EPILOG)(getattr(module, name))
        else:
            app.add_typer(_called_commands(module.app, words[1:2]), name=name)
    tree: Any = typer.main.get_command(app)
    tree.commands = {name: tree.commands[name] for name in _COMMANDS if name in tree.commands}
    known = set(_root.__annotations__)
    options = [option for option in tree.params if option.name in known]
    for option in options:
        option.expose_value = False
    _add_options(tree, options)
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


def _add_options(group: Any, options: Sequence[Any]) -> None:
    """Add options to every group and command below a group, except those that it has with another meaning."""
    for command in group.commands.values():
        taken = {name for option in command.params for name in option.opts}
        command.params += [option for option in options if not taken.intersection(option.opts)]
        if hasattr(command, "commands"):
            _add_options(command, options)


def run_typer(argv: list[str]) -> int:
    """Run one command line and return its exit code. Raises the errors of the command."""
    if argv[:1] == ["help"]:
        argv = [*argv[1:], "--help"]
    if len(argv) == 2 and completion.handle_option(*argv):
        return 0
    root = command_tree(argv)
    try:
        return int(root.main(args=argv, prog_name="vimectl", standalone_mode=False))
    except typer.Abort:
        return INTERRUPTED
    except USAGE_ERROR as e:
        if "--json" in argv:
            report_error(UsageError(e.format_message(), "see --help"), command_name(root, argv), True)
        else:
            # Typer prints what the user has typed: show hidden characters.
            message = visible(e.format_message())
            e.format_message = lambda: message
            with contextlib.suppress(OSError):  # standard error cannot be written
                e.show()
        return 2


def complete() -> int:
    """Print what a shell can complete; nothing where that fails, as a prompt is no place for a message."""
    with contextlib.suppress(Exception):
        if found := completion.answer(command_tree(completion.line_words() or ())):
            out.print(found)
            out.flush()
    return 0


def command_name(root: Any, argv: Sequence[str]) -> str:
    """Return the command of a command line as in the JSON schema's name: ``patch.status``."""
    names = []
    for word in argv:
        if word in getattr(root, "commands", {}):
            names.append(word)
            root = root.commands[word]
    names += [root.default_command] if hasattr(root, "default_command") else []
    return ".".join(names) or "vimectl"
