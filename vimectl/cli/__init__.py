"""The command line: one module per command group, each a thin layer over a feature.

Feature modules are imported inside the commands so that `vimectl --version` stays fast.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vime_runtime.spec.errors import INTERRUPTED

from vimectl import __version__

if TYPE_CHECKING:
    from vime_runtime.spec.errors import VimeError

# Typer brings its own copy of click in newer releases and uses the installed one in older:
# its public exceptions lead to the right base class in both.
USAGE_ERROR: Any = typer.BadParameter.__base__

_COMMANDS = ("doctor", "stack", "env", "patch", "tms", "image", "recipe", "run", "runs")

app = typer.Typer(
    name="vimectl",
    help="Reinforcement learning on Ascend NPUs as a declared, checked, reversible state.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vimectl {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    pass


_registered: set[str] = set()


def _register(argv: Sequence[str] = ()) -> None:
    """Make the commands known: the one that is called, or all of them for help and completion."""
    # A command is called by the first word that is no option, and before it only these options can stand.
    words = [word for word in argv if word not in ("--debug", "--version")]
    called = [name for name in _COMMANDS if words[:1] == [name]]
    if argv[:1] == ["--version"]:
        return
    for name in called or _COMMANDS:
        if name in _registered:  # a process may run several command lines
            continue
        _registered.add(name)
        module = importlib.import_module(f"vimectl.cli.{name}")
        if name == "doctor":
            app.command(name)(module.doctor)
        else:
            app.add_typer(module.app, name=name)


def main() -> None:
    """Entry point of the `vimectl` script: run a command and turn every outcome into an exit code."""
    # Importing makes thousands of objects that all stay: looking for garbage among them again and again
    # takes a fourteenth of a short command.
    gc.set_threshold(100_000)
    try:
        sys.exit(run_cli(sys.argv[1:]))
    except KeyboardInterrupt:  # while the command was still being imported
        sys.exit(INTERRUPTED)


def run_cli(argv: list[str]) -> int:
    """Run one command line and return its exit code (0, 1, 2, 3 or 130)."""
    from vime_runtime.spec.errors import UsageError, VimeError

    from vimectl.util.console import report_error

    _register(argv)
    root = typer.main.get_command(app)
    try:
        code = root.main(args=argv, prog_name="vimectl", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except USAGE_ERROR as e:
        if "--json" in argv:
            report_error(UsageError(e.format_message(), "see --help"), _command(root, argv), True)
        else:
            e.show()
        return 2
    except Exception as e:
        if "--debug" in argv:
            raise
        error = e if isinstance(e, VimeError) else _unforeseen(e)
        report_error(error, _command(root, argv), "--json" in argv)
        return error.exit_code


def _command(root: Any, argv: list[str]) -> str:
    """The command meant by a command line, as the JSON schema names it: ``patch.status``."""
    names = []
    for word in argv:
        if word in getattr(root, "commands", {}):
            names.append(word)
            root = root.commands[word]
    return ".".join(names) or "vimectl"


def _unforeseen(error: Exception) -> VimeError:
    """An error nobody wrote a message for."""
    from vime_runtime.spec.errors import VimeError

    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return VimeError(what, "`vimectl --debug ...` shows where")
