"""The one object through which the tool looks at a machine.

A test describes any machine with a directory (its root file system), a dictionary (its
environment) and a function that answers commands.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath


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


# As many links may follow each other on the way to a file as the kernel allows, path_resolution(7).
_MOST_LINKS = 40


@dataclass(frozen=True)
class Host:
    """A machine: its root directory, its environment, and how to run a command on it.

    ``running`` is False for a file system that is only looked at, an unpacked image say: it has no
    processes, no devices and no environment.
    """

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    run: Callable[[Sequence[str], float], CommandResult] = run_here
    running: bool = True

    @classmethod
    def only_files(cls, root: Path) -> Host:
        """A file system that is only looked at."""
        return cls(root.resolve(), {}, lambda argv, timeout: CommandResult(127, "", "not running"), False)

    def remembering(self) -> Host:
        """The same machine, which runs each command once and then gives the same answer again."""
        answer = cache(lambda argv, timeout: self.run(argv, timeout))
        return replace(self, run=lambda argv, timeout: answer(tuple(argv), timeout))

    @property
    def is_here(self) -> bool:
        """Whether this is the running machine rather than a described or mounted one."""
        return self.root == Path("/")

    def path(self, absolute: str) -> Path:
        """Map an absolute path of the machine to where it can be read from here.

        In another root, links are followed as its own processes would follow them: ``/usr/local/latest``
        may be a link to ``/usr/local/9.0``, which is not the running machine's.
        """
        if self.is_here:
            return Path(absolute)
        here, ahead, links = self.root, list(PurePosixPath(absolute).parts), 0
        while ahead:
            part = ahead.pop(0)
            if part == "/":
                here = self.root
            elif part == "..":
                here = here if here == self.root else here.parent
            elif (here / part).is_symlink() and links < _MOST_LINKS:
                links += 1
                ahead = [*PurePosixPath(os.readlink(here / part)).parts, *ahead]
            else:
                here = here / part
        return here

    def read(self, absolute: str) -> str | None:
        """Return the text of a file of the machine, or None when it is absent or unreadable."""
        try:
            return self.path(absolute).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
