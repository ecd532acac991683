"""The errors that reach a user as a message instead of a traceback.

Each one states what was found and what was expected (``message``) and the command or edit that fixes it
(``hint``). ``kind`` is the value of ``error.kind`` in JSON output and in ``events.jsonl``; ``exit_code`` is
the exit code of the tool and of the runtime. Both are stable for scripts.
"""

from __future__ import annotations

from collections.abc import Iterable

# The exit code of the tool after Ctrl-C or a stop request.
INTERRUPTED = 130
# The exit code of the runtime after a stop request: 128 + SIGTERM.
TERMINATED = 143


class VimeError(Exception):
    """Base class of all errors with a message for the user."""

    kind = "error"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class CheckFailed(VimeError):
    """A check or a verification found a difference."""

    kind = "check-failed"


class UsageError(VimeError):
    """The user gave something unknown or malformed."""

    kind = "bad-input"
    exit_code = 2


class MissingRequirement(VimeError):
    """The machine or the cluster lacks something that the command or the run needs."""

    kind = "machine-lacks"
    exit_code = 3


class WrongEnvironment(VimeError):
    """A process of a run refused to start because a required environment variable has another value."""

    kind = "wrong-environment"


class DeviceMemoryError(VimeError):
    """A device has too little free memory for the trainer, or lost what the trainer had there."""

    kind = "device-memory"


# What to do if a device has too little free memory for the trainer while the engine sleeps.
DEVICE_MEMORY_HINT = (
    "end other processes on the device (`npu-smi info` lists them), set rollout.eager = true so that the "
    "sleeping engine keeps no graphs, or raise train.tensor_parallel"
)


class RewardFailed(VimeError):
    """The reward function failed for too many responses.

    ``where`` is "FILE:LINE in FUNCTION" of its error, and ``traceback`` the user's part of it.
    """

    kind = "reward-failed"

    def __init__(self, message: str, hint: str = "", where: str = "", traceback: str = "") -> None:
        super().__init__(message, hint)
        self.where = where
        self.traceback = traceback


class NotFinite(VimeError):
    """A loss, a gradient or another number of a step is infinite or NaN. The model is lost with it."""

    kind = "not-finite"


class LogprobDifference(VimeError):
    """The log-probabilities of trainer and engine differ by more than the recipe allows."""

    kind = "logprob-difference"


class CheckpointFailed(VimeError):
    """The training state could not be saved. The run stops, because it could not be resumed."""

    kind = "checkpoint-failed"


def nearest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """Return " Did you mean a, b?" for the known names closest to ``name``, or ""."""
    import difflib  # only errors need it

    found = difflib.get_close_matches(name, list(known), n=limit, cutoff=0.5)
    return f" Did you mean {', '.join(found)}?" if found else ""


def unknown(what: str, name: str, known: Iterable[str], hint: str = "") -> UsageError:
    """Return the error for a name that is not among ``known``; it suggests the nearest known names."""
    known = sorted(known)
    return UsageError(
        f"unknown {what} {name!r}.{nearest(name, known)}",
        hint or f"known: {', '.join(known) if known else 'none'}",
    )
