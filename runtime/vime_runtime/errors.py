"""The error that a run's input causes, as opposed to a failure of the run."""

from __future__ import annotations


class InputError(Exception):
    """Something the user gave is unknown or malformed: what was found, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
