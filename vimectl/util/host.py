"""The one object through which the tool looks at a machine.

A test describes any machine with a directory (its root file system), a dictionary (its
environment) and a function that answers commands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

# As many links as the kernel follows, path_resolution(7).
_MOST_LINKS = 40


@dataclass(frozen=True)
class CommandResult:
    """What a command gave back. ``code`` is 127 for no such program, 124 for out of time, 126 for not run."""

    code: int
    stdout: str = ""
    stderr: str = ""


Run = Callable[[Sequence[str], float], CommandResult]


def run_here(argv: Sequence[str], timeout: float) -> CommandResult:
    """Run a command on this machine, output captured, killed after ``timeout`` seconds."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, errors="replace")
    except FileNotFoundError:
        return CommandResult(127, "", f"{argv[0]}: not found")
    except subprocess.TimeoutExpired as e:
        # What it had said until then is bytes, whatever was asked for.
        said = e.stdout.decode(errors="replace") if isinstance(e.stdout, bytes) else ""
        return CommandResult(124, said, f"{argv[0]}: no answer within {timeout:g} s")
    except OSError as e:  # there, and not a program for this user or machine
        return CommandResult(126, "", f"{argv[0]}: {e.strerror}")
    return CommandResult(done.returncode, done.stdout, done.stderr)


def not_run(argv: Sequence[str], timeout: float) -> CommandResult:
    """Run nothing: the answer of a file system that is only looked at."""
    return CommandResult(126, "", "nothing is run in another root")


@dataclass(frozen=True)
class Host:
    """A machine: its root directory, its environment, and how to run a command on it."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Run = run_here

    @property
    def is_here(self) -> bool:
        """Whether this is the running machine rather than a described or mounted one."""
        return self.root == Path("/")

    @property
    def is_running(self) -> bool:
        """Whether it has processes and devices; an unpacked image has not."""
        return self.path("/proc/self/status").exists()

    @property
    def python(self) -> str:
        """The interpreter that would run the job."""
        return sys.executable if self.is_here else "python3"

    def path(self, absolute: str) -> Path:
        """Map an absolute path of the machine to where it can be read from here.

        Links are followed as the machine itself would follow them: an absolute one stays in its root.
        """
        if self.is_here:
            return self.root / absolute.lstrip("/")
        return self._inside(absolute)

    def read(self, absolute: str) -> str | None:
        """Return the text of a file of the machine, or None when it is absent or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def asking_once(self) -> Host:
        """Return the same machine, which answers a command that was run before without running it again."""
        answers: dict[tuple[str, ...], CommandResult] = {}

        def run(argv: Sequence[str], timeout: float) -> CommandResult:
            key = tuple(argv)
            if key not in answers:
                answers[key] = self.run(argv, timeout)
            return answers[key]

        return replace(self, run=run)

    def _inside(self, absolute: str) -> Path:
        path = self.root
        todo = list(reversed(PurePosixPath(absolute.lstrip("/")).parts))
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                path = path if path == self.root else path.parent
                continue
            path = path / part
            if links < _MOST_LINKS and path.is_symlink():
                links += 1
                target = PurePosixPath(os.readlink(path))
                path = self.root if target.is_absolute() else path.parent
                todo += reversed(target.relative_to("/").parts if target.is_absolute() else target.parts)
        return path
