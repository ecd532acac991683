"""The errors that have a message for the user, as opposed to a failure of the run."""

from __future__ import annotations


class RunError(Exception):
    """Base of all: what was found, what to do about it, and the runtime's exit code. Never raised itself."""

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(RunError):
    """Something the user gave is unknown or malformed."""

    kind = "bad-input"
    exit_code = 2


class MachineLacks(RunError):
    """The machine, or the cluster, does not have what the run needs."""

    kind = "machine-lacks"
    exit_code = 3


class WrongEnvironment(RunError):
    """A process does not have an environment variable as it needs it, and does not start."""

    kind = "wrong-environment"
    exit_code = 1


class CheckpointFailed(RunError):
    """The training state cannot be kept, and a run that cannot be gone on with does not go on."""

    kind = "checkpoint-failed"
    exit_code = 1
