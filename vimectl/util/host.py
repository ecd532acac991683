"""The interface through which the tool reads a machine: files, environment variables and commands.

A test describes a machine by a directory (its root file system), a dictionary (its environment) and a
function that answers commands.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

# The limit of the kernel, path_resolution(7).
_MAX_SYMLINKS = 40


class CommandResult(NamedTuple):
    """A command's result. ``code`` is 127 for an unknown program, 124 after a timeout, 126 if not run."""

    code: int
    stdout: str = ""
    stderr: str = ""


RunCommand = Callable[[Sequence[str], float], CommandResult]


def run_command(argv: Sequence[str], timeout: float) -> CommandResult:
    """Run a command on this machine, output captured, killed after ``timeout`` seconds."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, errors="replace")
    except FileNotFoundError:
        return CommandResult(127, "", f"{argv[0]}: not found")
    except subprocess.TimeoutExpired as e:
        # The partial output is bytes in spite of text=True.
        partial = e.stdout.decode(errors="replace") if isinstance(e.stdout, bytes) else ""
        return CommandResult(124, partial, f"{argv[0]}: no answer within {timeout:g} s")
    except OSError as e:  # it exists, but this user or machine cannot execute it
        return CommandResult(126, "", f"{argv[0]}: {e.strerror}")
    return CommandResult(done.returncode, done.stdout, done.stderr)


def refuse_command(argv: Sequence[str], timeout: float) -> CommandResult:
    """Refuse to run a command: for a root file system that is only read."""
    return CommandResult(126, "", "commands are not run in another root")


@dataclass(frozen=True)
class Host:
    """A machine: its root directory, its environment variables, and how to run a command on it."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: RunCommand = run_command

    @property
    def is_here(self) -> bool:
        """True for the running machine, False for a described or mounted one."""
        return self.root == Path("/")

    @property
    def is_running(self) -> bool:
        """True when the machine has processes and devices, unlike an unpacked image."""
        return self.path("/proc/self/status").exists()

    @property
    def python(self) -> str:
        """The Python interpreter that would run the job."""
        return sys.executable if self.is_here else "python3"

    def path(self, absolute: str) -> Path:
        """Map an absolute path of the machine to a path of this process.

        Symlinks are resolved inside the machine's root: an absolute target is relative to it.
        """
        if self.is_here:
            return self.root / absolute.lstrip("/")
        path = self.root
        todo = list(reversed(PurePosixPath(absolute.lstrip("/")).parts))
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                path = path if path == self.root else path.parent
                continue
            path = path / part
            if links < _MAX_SYMLINKS and path.is_symlink():
                links += 1
                target = PurePosixPath(os.readlink(path))
                path = self.root if target.is_absolute() else path.parent
                todo += reversed(target.relative_to("/").parts if target.is_absolute() else target.parts)
        return path

    def read(self, absolute: str) -> str | None:
        """Return the text of a file, or None when it is absent or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def search(self, absolute: str, pattern: str) -> re.Match[str] | None:
        """Search a file, ``^`` and ``$`` match at each line; None also when it is absent or unreadable."""
        return re.search(pattern, self.read(absolute) or "", re.MULTILINE)

    def with_command_cache(self) -> Host:
        """Return the same machine with a cache of command results: each command is run once."""
        answers: dict[tuple[str, ...], CommandResult] = {}

        def run(argv: Sequence[str], timeout: float) -> CommandResult:
            key = tuple(argv)
            if key not in answers:
                answers[key] = self.run(argv, timeout)
            return answers[key]

        return replace(self, run=run)
