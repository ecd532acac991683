"""Read events and responses for a run's page. The file may be incomplete: the run may have been killed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec import events, metrics
from vime_runtime.spec.regular_files import open_regular

from vimectl.runs.report.axis import format_number
from vimectl.runs.run_log import JsonLineFollower, finite_number

# The page shows responses of the first, the middle and the last step, and at most this many of each.
SAMPLED_STEPS = 3
SAMPLES_PER_STEP = 8


@dataclass(frozen=True)
class TimelineEvent:
    """Something that happened at a step: kind of the event, time in seconds, and a text for people."""

    kind: str
    step: int
    time: float
    text: str


@dataclass(frozen=True)
class StepSamples:
    """Responses of one step: those shown, and the number of all that the run has kept."""

    step: int
    shown: list[dict[str, Any]]
    kept: int


def read_timeline(path: Path) -> tuple[list[TimelineEvent], list[StepSamples]]:
    """Read an event log. It may be large: keep offsets of samples and read the chosen ones."""
    timeline = []
    offsets: dict[int, list[int]] = {}  # of the samples of a step
    for offset, event in JsonLineFollower(path).read():
        kind, step = event.get("kind"), int(finite_number(event.get("step")) or 0)
        if kind == events.SAMPLE:
            offsets.setdefault(step, []).append(offset)
        elif kind == events.PHASE and event.get("phase") == metrics.ROLLOUT:
            offsets = {n: places for n, places in offsets.items() if n < step}  # the step is done again
        elif text := _describe(event):
            timeline.append(TimelineEvent(str(kind), step, finite_number(event.get("time")) or 0.0, text))
    steps = sorted(offsets)
    chosen = {steps[i * (len(steps) - 1) // (SAMPLED_STEPS - 1)] for i in range(SAMPLED_STEPS) if steps}
    return timeline, [_read_samples(path, step, offsets[step]) for step in sorted(chosen)]


def _read_samples(path: Path, step: int, offsets: list[int]) -> StepSamples:
    shown = []
    with open_regular(path) as file:
        for offset in offsets[:SAMPLES_PER_STEP]:
            file.seek(offset)
            shown.append(json.loads(file.readline()))
    return StepSamples(step, shown, len(offsets))


def _describe(event: dict[str, Any]) -> str:
    """Return the text of an event in the timeline; empty for an event that is not shown."""
    step = event.get("step")
    match event.get("kind"):
        case events.CHECKPOINT:
            return f"state of step {step} saved in {event.get('path', 'checkpoints')}"
        case events.EVALUATION if event.get("best") is True:
            score = finite_number(event.get("score"))
            return "best evaluation so far" + ("" if score is None else f": {format_number(score)}")
        case events.RESTART:
            # --resume is attempt 0.
            what = f"restart {event['attempt']}" if event.get("attempt") else "resumed"
            return f"{what} after step {step}: {event.get('reason', '')}"
        case events.WARNING:
            return str(event.get("message", ""))
        case events.ERROR:
            error = event.get("error")
            return str(error.get("message", "")) if isinstance(error, dict) else str(error or "")
    return ""
