"""Read the operating system: kernel, C library, shared libraries, clock, installed programs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import Host

_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


@dataclass(frozen=True)
class Program:
    """The first line that a program printed, and True if its exit status was 0."""

    works: bool
    line: str


def missing_paths(host: Host, paths: tuple[str, ...]) -> list[str]:
    """Return those of the paths that do not exist."""
    return [path for path in paths if not host.path(path).exists()]


def read_text(host: Host, path: str) -> str:
    """Return the text of a file, stripped. Raises Unavailable if it cannot be read."""
    text = host.read(path)
    if text is None:
        raise Unavailable(f"{path} cannot be read")
    return text.strip()


def read_uname(host: Host, option: str) -> str:
    """Return the output of `uname` with an option. Raises Unavailable if it fails."""
    answer = host.run(["uname", option], 5)
    if answer.code != 0:
        raise Unavailable(f"uname does not answer: {answer.stderr.strip() or answer.code}")
    return answer.stdout.strip()


def read_distribution_name(host: Host) -> str:
    """Return the name and version of the Linux distribution, or an empty text."""
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', host.read("/etc/os-release") or "", re.MULTILINE)
    return found[1] if found else ""


def read_glibc(host: Host) -> tuple[int, int] | None:
    """Return the version of glibc, or None if the C library is another one.

    Raises:
        Unavailable: no command can be run.
    """
    answer = host.run(["getconf", "GNU_LIBC_VERSION"], 5)
    if answer.code == 126:
        raise Unavailable(answer.stderr)
    found = re.match(r"glibc (\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def read_library_errors(host: Host, names: tuple[str, ...]) -> dict[str, str]:
    """Load shared libraries; return the error of each that cannot be loaded.

    Raises:
        Unavailable: the interpreter that loads them cannot be started.
    """
    answers = {name: host.run([host.python, "-c", _LOAD, name], 20) for name in names}
    if any(answer.code in (126, 127) for answer in answers.values()):
        raise Unavailable(f"{host.python} cannot be started here")
    failed = {name: answer.stderr.strip() for name, answer in answers.items() if answer.code != 0}
    return {name: (text.splitlines() or [name])[-1] for name, text in failed.items()}


def read_clock(host: Host) -> int:
    """Return the time of the machine in seconds since the epoch. Raises Unavailable."""
    answer = host.run(["date", "-u", "+%s"], 5)
    if answer.code != 0 or not answer.stdout.strip().isdecimal():
        raise Unavailable(f"date does not answer: {answer.stderr.strip() or answer.code}")
    return int(answer.stdout)


def read_program(host: Host, command: Sequence[str]) -> Program:
    """Run a command that prints the version of a program."""
    answer = host.run(command, 5)
    text = (answer.stdout if answer.code == 0 else answer.stderr).strip()
    line = text.splitlines()[0].strip() if text else ""
    if answer.code == 0:
        return Program(True, line)
    return Program(False, line or f"{command[0]}: exit status {answer.code}")
