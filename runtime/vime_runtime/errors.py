"""The errors that say what to do about them: of the input, and of the run."""

from __future__ import annotations


class InputError(Exception):
    """Something the user gave is unknown or malformed: what was found, and what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class RunFailed(Exception):
    """The run cannot go on, for a reason that people can do something about: what happened, and the mend."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
