"""The command line: one module per command group, each a thin layer over a feature.

Feature modules are imported inside the commands to keep `vimectl --version` fast. A command returns a
``CommandOutput``; an error is a ``VimeError``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys

from vime_runtime.spec.errors import INTERRUPTED, MissingRequirement, UsageError, VimeError

from vimectl import __version__
from vimectl.cli import plain_patch
from vimectl.util.console import NORMAL, OutputError, err, out, report_error

# Errors of the machine rather than of what the user has named.
_LACKS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS)


def main() -> None:
    """Entry point of the `vimectl` script: run a command and exit with its exit code."""
    # Imports create thousands of objects that stay alive. Collecting garbage among them takes 7 % of the time
    # of a short command.
    gc.set_threshold(100_000)
    _open_closed_streams()
    try:
        exit_code = run_cli(sys.argv[1:])
    except KeyboardInterrupt:  # during the import of the command
        exit_code = INTERRUPTED
    gc.freeze()  # or the interpreter looks for garbage once more before it exits
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # reported already; the interpreter would fail once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(exit_code)


def run_cli(argv: list[str]) -> int:
    """Run one command line and return its exit code (0, 1, 2, 3 or 130)."""
    try:
        err.level = NORMAL
        code = _run_command(argv)
        out.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as e:
        if "--debug" in argv:
            raise
        error = _as_vime_error(e)
        _report(error, argv)
        return error.exit_code


def _run_command(argv: list[str]) -> int:
    if "_VIMECTL_COMPLETE" in os.environ:
        from vimectl.cli.tree import complete

        return complete()
    if argv == ["--version"]:
        out.print(f"vimectl {__version__}")
        return 0
    if (code := plain_patch.run(argv)) is not None:
        return code
    from vimectl.cli.tree import run_typer

    return run_typer(argv)


def _as_vime_error(error: Exception) -> VimeError:
    """Return the error for the user: of a file what is wrong with it, of anything unforeseen its text."""
    if isinstance(error, VimeError):
        return error
    if isinstance(error, OSError) and error.strerror:
        named = isinstance(error.filename, (str, bytes))
        message = f"{os.fsdecode(error.filename)}: {error.strerror}" if named else error.strerror
        if error.errno in _LACKS:
            return MissingRequirement(message, "free some space, or use another disk")
        if named:
            return UsageError(message, "name another file, or make it accessible")
    what = f"{type(error).__name__}: {error}".removesuffix(": ")
    return VimeError(what, "`vimectl --debug ...` shows the traceback")


def _report(error: VimeError, argv: list[str]) -> None:
    from vimectl.cli.tree import command_name, command_tree

    command = command_name(command_tree(argv), argv)
    with contextlib.suppress(OSError, OutputError):  # nothing can be reported without standard error
        try:
            report_error(error, command, "--json" in argv and not isinstance(error, OutputError))
        except OutputError as e:
            report_error(e, command, False)


def _open_closed_streams() -> None:
    """Open /dev/null for closed standard streams: the next files would be opened in their place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 # for good
