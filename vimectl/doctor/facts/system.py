"""Read the operating system: C library, shared libraries, installed programs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import Host

_LOAD = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"


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


def read_program(host: Host, command: Sequence[str]) -> tuple[bool, str]:
    """Run a command that prints the version of a program. Return True if it works, and its first line."""
    answer = host.run(command, 5)
    works = answer.code == 0
    lines = (answer.stdout if works else answer.stderr).strip().splitlines()
    failure = "" if works else f"{command[0]}: exit status {answer.code}"
    return works, lines[0].strip() if lines else failure
