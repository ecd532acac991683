"""The lines of ``events.jsonl``: a JSON object with ``time`` (seconds since the epoch), ``kind`` and fields.

kind        fields
phase       phase, step, steps, detail: the run enters a phase
process     role, rank, pid, node: a process of the run exists
sample      step, prompt, response, label, reward: one response of a prompt
evaluation  step, score, best; before the first step also scores: {metric: score} of every set
checkpoint  step, path, seconds, bytes: a training state was saved
warning     message
error       error: ``ErrorFields``: why the run fails; the first one counts
ending      done: from here on processes exit because the run shuts down
restart     attempt, step, reason: the supervisor starts the runtime again; attempt 0 is --resume
"""

from __future__ import annotations

from typing import TypedDict

PHASE = "phase"
PROCESS = "process"
SAMPLE = "sample"
EVALUATION = "evaluation"
CHECKPOINT = "checkpoint"
WARNING = "warning"
ERROR = "error"
ENDING = "ending"
RESTART = "restart"

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
