"""Read the files of a run for its page. A file may be missing or incomplete: the run may have been killed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec import events, metrics
from vime_runtime.spec.run_paths import RunPaths

from vimectl.runs.run_directory import RunDirectory, RunState, read_object
from vimectl.runs.run_log import JsonLineFollower, RunLog, finite_number

# The page shows responses of the first, the middle and the last step, and at most this many of each.
SAMPLED_STEPS = 3
SAMPLES_PER_STEP = 8

JsonObject = dict[str, Any]


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
    shown: list[JsonObject]
    kept: int


@dataclass(frozen=True)
class ReportData:
    """Everything about a run that the page shows. A file that is missing or damaged counts as empty."""

    run_dir: Path
    state: RunState
    log: RunLog
    timeline: list[TimelineEvent]
    samples: list[StepSamples]
    resolved: JsonObject
    environment: JsonObject
    launcher: JsonObject
    summary: JsonObject


def gather(run_dir: Path) -> ReportData:
    """Read a run directory."""
    paths = RunPaths(run_dir)
    log = RunLog(run_dir)
    log.read()
    timeline, samples = _read_events(paths.events)
    return ReportData(
        run_dir=run_dir,
        state=RunDirectory(run_dir).state,
        log=log,
        timeline=timeline,
        samples=samples,
        resolved=read_object(paths.run_file),
        environment=read_object(paths.environment),
        launcher=read_object(paths.launcher),
        summary=read_object(paths.summary),
    )


def _read_events(path: Path) -> tuple[list[TimelineEvent], list[StepSamples]]:
    """Read timeline and samples. The file may be large: keep offsets of samples and read the chosen ones."""
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
    samples = []
    for step in sorted(chosen):
        with path.open("rb") as file:
            shown = [_read_line(file, offset) for offset in offsets[step][:SAMPLES_PER_STEP]]
        samples.append(StepSamples(step, shown, len(offsets[step])))
    return timeline, samples


def _read_line(file: Any, offset: int) -> JsonObject:
    file.seek(offset)
    found: JsonObject = json.loads(file.readline())
    return found


def _describe(event: JsonObject) -> str:
    """Return the text of an event in the timeline; empty for an event that is not shown."""
    step = event.get("step")
    match event.get("kind"):
        case events.CHECKPOINT:
            return f"state of step {step} saved in {event.get('path', 'checkpoints')}"
        case events.EVALUATION if event.get("best") is True:
            return f"best evaluation so far: {event.get('score')}"
        case events.RESTART:
            # --resume is attempt 0.
            what = f"restart {event['attempt']}" if event.get("attempt") else "resumed"
            return f"{what} after step {step}: {event.get('reason', '')}"
        case events.ERROR:
            error = event.get("error")
            return str(error.get("message", "")) if isinstance(error, dict) else str(error or "")
    return ""
