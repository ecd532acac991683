"""Run a child process with its output logged, and stop all of its processes when this one is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vimectl.util.console import err
from vimectl.util.host import CommandResult

OnLine = Callable[[str], None]

# With these, packages of another environment would count as installed, or byte code be written elsewhere.
_REMOVED_VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX")


def run_logged(
    argv: Sequence[str | Path],
    log: Path,
    on_line: OnLine,
    variables: Mapping[str, str] | None = None,
    lock_fd: int | None = None,
    cleanup_seconds: float = 0,
) -> tuple[int, str]:
    """Run a command to its end; return its exit status and its output, which is appended to ``log``.

    The command runs in a new session: Ctrl-C only reaches this process, which then stops the whole session.

    Args:
        on_line: called with each line of output, stripped.
        variables: environment variables to set in addition.
        lock_fd: descriptor of a locked directory. The child inherits it, so the lock outlives this process.
        cleanup_seconds: how long the command gets to clean up after SIGTERM before it is killed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _REMOVED_VARIABLES}
    lines: list[str] = []
    err.command(argv)
    with log.open("a", encoding="utf-8", buffering=1) as file:  # line by line, for `tail -f`
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment | {"PYTHONUNBUFFERED": "1"} | dict(variables or {}),
            start_new_session=True,
            pass_fds=() if lock_fd is None else (lock_fd,),
        )
        assert child.stdout is not None
        try:
            for line in child.stdout:
                lines.append(line)
                file.write(line)
                err.detail(line.rstrip())
                on_line(line.strip())
            return child.wait(), "".join(lines)
        finally:
            if cleanup_seconds and child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: do not wait
                    child.wait(cleanup_seconds)
            with suppress(ProcessLookupError):  # the whole session has exited
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def run_shielded(argv: Sequence[str]) -> CommandResult:
    """Run a short command that Ctrl-C does not reach, so that cleanup completes."""
    err.command(argv)
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", start_new_session=True)
    return CommandResult(done.returncode, done.stdout, done.stderr)
