"""Run a child process that works in a directory of ours, follow its output, and end it with this process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vimectl.util.host import CommandResult

# These would have another environment's packages count as installed, or byte code written elsewhere.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX")


def follow(
    argv: Sequence[str | Path],
    variables: Mapping[str, str],
    held: int | None,
    log: Path,
    on_line: Callable[[str], None],
    seconds: float = 0,
) -> tuple[int, str]:
    """Run a command to its end; return its exit status and its whole output, which ``log`` gets as well.

    It has a session of its own, so that Ctrl-C reaches this process first, which then ends all of it.
    ``held`` is the descriptor that keeps the directory locked: the child inherits it. ``seconds`` is what a
    command that is broken off gets to clean up by itself, before it is killed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    lines: list[str] = []
    with log.open("a", encoding="utf-8", buffering=1) as file:  # somebody may be following it
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment | {"PYTHONUNBUFFERED": "1"} | dict(variables),
            start_new_session=True,
            pass_fds=() if held is None else (held,),
        )
        assert child.stdout is not None
        try:
            for line in child.stdout:
                lines.append(line)
                file.write(line)
                on_line(line.strip())
            return child.wait(), "".join(lines)
        finally:
            if seconds and child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
                with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C: at once
                    child.wait(seconds)
            with suppress(ProcessLookupError):  # it ended, and so did all that it started
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def quietly(argv: Sequence[str]) -> CommandResult:
    """Run a short command out of the reach of Ctrl-C, so that what is to be cleaned up is."""
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", start_new_session=True)
    return CommandResult(done.returncode, done.stdout, done.stderr)
