"""python: the interpreter that would run the job."""

from __future__ import annotations

import platform
import re
import sys
from collections import Counter

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.detection import find
from vimectl.stacks.schema import Stack


def checks(stack: Stack) -> list[Check]:
    return [
        Check("python.version", "the stack's packages exist for these versions of Python", _version),
    ]


def _version(subject: Subject) -> Outcome:
    stack = subject.stack
    found, where = _found(subject)
    if found is None:
        return skipped("no package of the stack is installed that would say for which interpreter")
    return judged(
        stack.supports_python(found),
        f"{found} ({where})",
        stack.stack.python,
        _other_interpreter(stack),
    )


def _found(subject: Subject) -> tuple[str | None, str]:
    """The version of the interpreter that would run the job, and where that is written."""
    if subject.host.is_here:
        return platform.python_version(), sys.executable
    # From outside: that of the folder in which most packages of the stack are.
    installed = subject.installed
    have = [found for name in subject.stack.packages if (found := find(subject.stack, name, installed))]
    places = Counter(one.location for one in have).most_common(1)
    named = re.search(r"/python(3\.\d+)/", f"{places[0][0]}/") if places else None
    if named is None:
        return None, ""
    return named[1], f"/{places[0][0].relative_to(subject.host.root)}"


def _other_interpreter(stack: Stack) -> str:
    from vimectl.stacks.catalog import lock_path

    if lock_path(stack.name):
        return f"vimectl env create DIR --stack {stack.name}, then use DIR/bin/vimectl"
    return f"run vimectl with a Python {stack.stack.python}"
