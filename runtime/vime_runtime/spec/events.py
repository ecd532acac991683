"""The lines of ``events.jsonl``: a JSON object with ``time`` (seconds since the epoch), ``kind`` and fields.

kind        fields
phase       phase, step, steps, detail: the run enters a phase
process     role, rank, pid, node: a process of the run exists
sample      step, prompt, response, label, reward: one response of a prompt
evaluation  step, score, best
checkpoint  step, path, seconds, bytes: a training state was saved
warning     message
error       error: {kind, message, hint, pid}: why the run fails; the first one counts
ending      done: from here on processes exit because the run shuts down
restart     attempt, step, reason: the supervisor starts the runtime again; attempt 0 is --resume
"""

from __future__ import annotations

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
