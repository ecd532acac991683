"""Read what a run has left so far. Nothing here is trusted to be whole: runs are killed while they write."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vimectl.runs import run_state
from vimectl.runs.run_state import State, read_object

# Steps whose responses are shown: the first, the middle and the last one; and how many of each.
SHOWN_STEPS = 3
SAMPLES_PER_STEP = 8
SCORE = "evaluation/score"

Document = dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step: ``kind`` is an event's, ``words`` say what for a person."""

    kind: str
    step: int
    time: float
    words: str


@dataclass(frozen=True)
class Samples:
    """Some of the responses of one step, and of how many prompts the run kept one."""

    step: int
    shown: list[Document]
    kept: int


@dataclass(frozen=True)
class Run:
    """All of a run that the page shows. ``rows`` has one row of metrics a step, steps rising.

    ``scores`` are those of the held-out problems by step; step 0 is before the first.
    """

    run_dir: Path
    state: State
    rows: list[Document]
    scores: dict[int, float]
    samples: list[Samples]
    marks: list[Mark]
    resolved: Document
    environment: Document
    launcher: Document
    summary: Document
    phase: Document


def gather(run_dir: Path) -> Run:
    """Read a run directory. A file that is missing or damaged counts as empty, a damaged line as absent."""
    events = _Events(run_dir / "events.jsonl")
    rows = _rows(run_dir / "metrics.jsonl")
    return Run(
        run_dir=run_dir,
        state=run_state.state(run_dir),
        rows=rows,
        scores=_scores(rows, events.scores),
        samples=events.samples(),
        marks=events.marks,
        resolved=read_object(run_dir / "resolved.json"),
        environment=read_object(run_dir / "environment.json"),
        launcher=read_object(run_dir / "launcher.json"),
        summary=read_object(run_dir / run_state.SUMMARY_FILE),
        phase=events.phase,
    )


def number(value: Any) -> float | None:
    """A finite number, or None for everything else that may stand in a row."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond every float
        return None


def _rows(path: Path) -> list[Document]:
    """One row a step. A restarted run does steps again: what came of them and of later ones is void."""
    rows: dict[int, Document] = {}
    for _, row in _lines(path):
        if (step := number(row.get("step"))) is not None:
            _forget_from(rows, int(step))
            rows[int(step)] = row
    return list(rows.values())


def _scores(rows: list[Document], told: dict[int, float]) -> dict[int, float]:
    """What events and metrics say of the same thing; the score before the first step is in no row."""
    found = {int(row["step"]): score for row in rows if (score := number(row.get(SCORE))) is not None}
    return dict(sorted((found | told).items()))


def _forget_from(by_step: dict[int, Any], step: int) -> None:
    """Remove a step and those after it; they were put in as they rise."""
    while by_step and next(reversed(by_step)) >= step:
        by_step.popitem()


def _lines(path: Path) -> Iterator[tuple[int, Document]]:
    """The JSON objects of a file of lines, each with the place where its line begins."""
    try:
        file = path.open("rb")
    except OSError:
        return
    place = 0
    with file:
        for line in file:
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if isinstance(found, dict):
                yield place, found
            place += len(line)


@dataclass
class _Events:
    """One pass over ``events.jsonl``, which may be far larger than what is shown of it."""

    path: Path
    phase: Document = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    _places: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for place, event in _lines(self.path):
            self._take(place, event)

    def samples(self) -> list[Samples]:
        """Responses of the first, the middle and the last step that has any."""
        steps = sorted(step for step, places in self._places.items() if places)
        chosen = sorted(
            {steps[i * (len(steps) - 1) // (SHOWN_STEPS - 1)] for i in range(SHOWN_STEPS)} if steps else ()
        )
        return [Samples(step, list(self._read(step)), len(self._places[step])) for step in chosen]

    def _read(self, step: int) -> Iterator[Document]:
        with self.path.open("rb") as file:
            for place in self._places[step][:SAMPLES_PER_STEP]:
                file.seek(place)
                yield json.loads(file.readline())

    def _take(self, place: int, event: Document) -> None:
        kind, step = event.get("kind"), int(number(event.get("step")) or 0)
        if kind == "phase":
            self.phase = event
            if event.get("phase") == "rollout":
                _forget_from(self._places, step)
                _forget_from(self.scores, step)
        elif kind == "sample":
            self._places.setdefault(step, []).append(place)
        elif kind == "evaluation" and (score := number(event.get("score"))) is not None:
            self.scores[step] = score
        if kind in _WORDS:
            words = _WORDS[kind](event)
            if words:
                self.marks.append(Mark(kind, step, number(event.get("time")) or 0.0, words))


def _restart(event: Document) -> str:
    # Attempt 0 is a run that a person went on with.
    what = f"restart {event['attempt']}" if event.get("attempt") else "went on"
    return f"{what} after step {event.get('step')}: {event.get('reason', '')}"


def _error(event: Document) -> str:
    error = event.get("error")
    return str(error.get("message", "")) if isinstance(error, dict) else str(error or "")


# Kinds of events that are shown; a kind that is not here is somebody else's.
_WORDS: dict[str, Any] = {
    "checkpoint": lambda e: f"state of step {e.get('step')} saved in {e.get('path', 'checkpoints')}",
    "evaluation": lambda e: f"best evaluation so far: {e.get('score')}" if e.get("best") is True else "",
    "restart": _restart,
    "error": _error,
}
