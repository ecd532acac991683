"""The one object through which the tool looks at a machine.

A test describes any machine with a directory (its root file system), a dictionary (its
environment) and a function that answers commands.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class CommandResult:
    """What a command gave back. ``code`` is 127 for no such program, 124 for out of time."""

    code: int
    stdout: str = ""
    stderr: str = ""


def run_here(argv: Sequence[str], timeout: float) -> CommandResult:
    """Run a command on this machine, output captured, killed after ``timeout`` seconds."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, errors="replace")
    except FileNotFoundError:
        return CommandResult(127, "", f"{argv[0]}: not found")
    except subprocess.TimeoutExpired:
        return CommandResult(124, "", f"{argv[0]}: no answer within {timeout:g} s")
    return CommandResult(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Host:
    """A machine: its root directory, its environment, and how to run a command on it."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[[Sequence[str], float], CommandResult] = run_here

    @property
    def is_here(self) -> bool:
        """Whether this is the running machine rather than a described or mounted one."""
        return self.root == Path("/")

    def path(self, absolute: str) -> Path:
        """Map an absolute path of the machine to where it can be read from here."""
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """Return the text of a file of the machine, or None when it is absent or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
