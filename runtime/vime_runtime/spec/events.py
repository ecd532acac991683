"""The lines of ``events.jsonl``: objects with ``time`` (seconds since the epoch), ``kind`` and fields."""

from __future__ import annotations

from typing import NamedTuple, TypedDict


class EventKind(NamedTuple):
    """The fields of an event in addition to ``time`` and ``kind``, and what the event means."""

    fields: tuple[str, ...]
    meaning: str


EVENTS: dict[str, EventKind] = {}


def _event(kind: str, fields: str, meaning: str) -> str:
    EVENTS[kind] = EventKind(tuple(fields.split()), meaning)
    return kind


PHASE = _event("phase", "phase step steps detail", "The run enters a phase.")
PROCESS = _event("process", "role rank pid node", "A process of the run exists.")
CLOSING = _event("closing", "pids", "From here on these processes exit because the run ends them.")
SAMPLE = _event("sample", "step prompt response label reward", "One response of a prompt.")
EVALUATION = _event(
    "evaluation",
    "step score best",
    "A score; before the first step also `scores`, an object with the score of every set by its metric.",
)
CHECKPOINT = _event("checkpoint", "step path seconds bytes", "A training state was saved.")
WARNING = _event("warning", "message", "Something that a user should know.")
ERROR = _event("error", "error", "Why the run fails; the first one counts.")
ENDING = _event("ending", "done", "From here on processes exit because the run shuts down.")
RESTART = _event(
    "restart",
    "attempt step reason",
    "The supervisor starts the runtime again. Attempt 0 is `--resume`.",
)

# Phases outside the steps. Those of a step are named in ``metrics``.
PREPARE = "prepare"
START_UP = "start-up"
SAVE = "save"
STOP = "stop"
DONE = "done"


class ErrorFields(TypedDict):
    """Why the run fails.

    kind, message, hint: those of a ``VimeError``; of another exception its class, and "Class: message".
    where: "FILE:LINE in FUNCTION" of the user's code, or else of the runtime; of a ``VimeError`` only
        that of a reward.
    traceback: its last part; of a ``VimeError`` only that of a reward.
    pid: the process that has exited according to the error.
    lost_peer: the error only says that another process has exited or does not respond.
    exited: processes of the run on the driver's node that had exited before the run began to shut down.
    """

    kind: str
    message: str
    hint: str
    where: str
    traceback: str
    pid: int | None
    lost_peer: bool
    exited: list[int]
