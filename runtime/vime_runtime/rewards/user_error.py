"""Describe an exception by the user's part of its traceback."""

from __future__ import annotations

import inspect
import os
import re
import sysconfig
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile
from typing import Any

from vime_runtime.spec.traceback_text import location

_RUNTIME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STANDARD = (sysconfig.get_path("stdlib"), "<frozen ")
_INSTALLED = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
_MAX_MESSAGE = 1000
_MAX_TRACEBACK = 10_000
# What faulthandler writes before the stack of a signal or a crash.
_STACK = re.compile(r"^(?:Stack|Current thread) .*\(most recent call first\):$", re.MULTILINE)


@dataclass(frozen=True)
class UserError:
    """An exception of the user's code; see ``score.RewardError``."""

    message: str
    where: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException, function: Callable[..., Any] | None = None) -> UserError:
        """Describe an exception; without a frame of the user it is about the result of ``function``."""
        try:
            text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        except Exception:
            text = "(an exception whose text cannot be made)"
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
        # Until the first frame of the user there are the frames of this package and of importlib.
        frames = list(dropwhile(_is_ours, traceback.extract_tb(error.__traceback__)))
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames), message]
        if isinstance(error, SyntaxError) and error.filename:
            where = f"{error.filename}:{error.lineno}"
        else:
            where = location("".join(lines).splitlines()) if frames else _definition(function)
        return cls(message[:_MAX_MESSAGE], where, "".join(lines)[-_MAX_TRACEBACK:] if frames else "")


def stack_place(printed: str) -> str:
    """Return "FILE:LINE in FUNCTION" of the user in the last stack that faulthandler has printed, or ""."""
    *_, stack = _STACK.split(printed)
    calls = re.findall(r'^  File ".+", line \d+ in .+$', stack, re.MULTILINE)
    place = location([re.sub(r"(, line \d+) in ", r"\1, in ", call) for call in reversed(calls)])
    return "" if place.startswith(_RUNTIME) else place


def _is_ours(frame: traceback.FrameSummary) -> bool:
    """Return True for a frame of this runtime or of the standard library."""
    standard = frame.filename.startswith(_STANDARD) and not frame.filename.startswith(_INSTALLED)
    return standard or frame.filename.startswith(_RUNTIME)


def _definition(function: Callable[..., Any] | None) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None) if function else None
    return f"{code.co_filename}:{code.co_firstlineno} in {code.co_name}" if code else ""
