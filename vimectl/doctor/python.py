"""python: the interpreter that would run the job."""

from __future__ import annotations

import platform
import sys

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stack import Stack


def checks(stack: Stack) -> list[Check]:
    return [Check("python.version", "the stack's packages exist for these versions of Python", _version)]


def _version(subject: Subject) -> Outcome:
    if not subject.host.is_here:
        return skipped("which interpreter would run the job cannot be told from outside")
    stack = subject.stack
    found = platform.python_version()
    return judged(
        stack.supports_python(found),
        f"{found} ({sys.executable})",
        stack.stack.python,
        _other_interpreter(stack),
    )


def _other_interpreter(stack: Stack) -> str:
    from vimectl.stack import lock_path

    if lock_path(stack.name):
        return f"vimectl env create DIR --stack {stack.name}, then use DIR/bin/vimectl"
    return f"run vimectl with a Python {stack.stack.python}"
