"""The command line: one module per command group, each a thin layer over a feature.

Feature modules are imported inside the commands to keep `vimectl --version` fast. A command returns a
``CommandOutput``; an error is a ``VimeError``.
"""

from __future__ import annotations

import gc
import sys

from vime_runtime.spec.errors import INTERRUPTED, VimeError

from vimectl.cli import plain_patch
from vimectl.util.console import report_error


def main() -> None:
    """Entry point of the `vimectl` script: run a command and exit with its exit code."""
    # Imports create thousands of objects that stay alive. Collecting garbage among them takes 7 % of the time
    # of a short command.
    gc.set_threshold(100_000)
    try:
        exit_code = run_cli(sys.argv[1:])
    except KeyboardInterrupt:  # during the import of the command
        exit_code = INTERRUPTED
    gc.freeze()  # or the interpreter looks for garbage once more before it exits
    sys.exit(exit_code)


def run_cli(argv: list[str]) -> int:
    """Run one command line and return its exit code (0, 1, 2, 3 or 130)."""
    try:
        if (code := plain_patch.run(argv)) is not None:
            return code
        from vimectl.cli.tree import run_typer

        return run_typer(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as e:
        if "--debug" in argv:
            raise
        from vimectl.cli.tree import command_name, command_tree

        what = f"{type(e).__name__}: {e}".removesuffix(": ")
        unexpected = VimeError(what, "`vimectl --debug ...` shows the traceback")
        error = e if isinstance(e, VimeError) else unexpected
        report_error(error, command_name(command_tree(argv), argv), "--json" in argv)
        return error.exit_code
