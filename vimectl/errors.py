"""The one exception family that reaches a user as a message instead of a traceback.

Each error says what was found and what was expected (``message``) and the command or
edit that mends it (``hint``). The exit codes are a promise to scripts:
1 a check failed, 2 bad usage or bad input, 3 the machine lacks something.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# The exit code of what Ctrl-C, or a request to stop, has ended.
INTERRUPTED = 130


class VimectlError(Exception):
    """Base of every error a user can cause. Never raised itself."""

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(VimectlError):
    """A check or verification found a difference."""

    kind = "check-failed"
    exit_code = 1


class BadInput(VimectlError):
    """Something the user gave is unknown or malformed."""

    kind = "bad-input"
    exit_code = 2


class MachineLacks(VimectlError):
    """The machine does not have what the command needs."""

    kind = "machine-lacks"
    exit_code = 3


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return " Did you mean a, b?" for the known names closest to ``name``, or ""."""
    found = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)
    return f" Did you mean {', '.join(found)}?" if found else ""


def unknown(what: str, name: str, known: Iterable[str], hint: str = "") -> BadInput:
    """An error for a name that is not among ``known``, pointing at the nearest ones."""
    known = sorted(known)
    return BadInput(
        f"unknown {what} {name!r}.{nearest(name, known)}",
        hint or f"known: {', '.join(known) if known else 'none'}",
    )
