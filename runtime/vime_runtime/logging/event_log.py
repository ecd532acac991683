"""Write ``events.jsonl`` and ``metrics.jsonl`` of the run directory while the run is running.

Each line is one JSON object, written with one unbuffered write. So a reader can follow the files, and a run
that is killed loses at most the line that it was writing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.batch import Response
from vime_runtime.logging.process_log import mark_phase
from vime_runtime.spec import events
from vime_runtime.spec.json_files import JsonLines
from vime_runtime.spec.metrics import EVALUATION_SCORE, STEP, seconds
from vime_runtime.spec.process_roles import ProcessEntry
from vime_runtime.spec.run_paths import RunPaths


@dataclass(frozen=True)
class ScoredResponse:
    """One response of a step.

    Attributes:
        group: index of the prompt in the step, or of the problem in its evaluation set.
        text: what the tokens of the response decode to.
    """

    step: int
    group: int
    prompt: str
    label: str
    response: Response
    text: str
    reward: float


class Callback:
    """A receiver of what the event log records. The base class ignores all of it."""

    def on_phase(self, phase: str, step: int) -> None:
        """Handle the start of a phase."""

    def on_response(self, scored: ScoredResponse) -> None:
        """Handle a scored response."""

    def on_answer(self, name: str, scored: ScoredResponse) -> None:
        """Handle a scored answer to a problem of an evaluation set."""

    def on_metrics(self, row: dict[str, float]) -> None:
        """Handle the metrics of a finished step; step 0 has the scores before training alone."""

    def on_ending(self, done: bool) -> None:
        """Handle the end of the work of the run, all of it ``done`` or not."""

    def close(self) -> None:
        """Release files; the callback is not used again."""


class EventLog:
    """Write both files of a run and measure its phases."""

    def __init__(self, run_dir: Path, steps: int) -> None:
        paths = RunPaths(run_dir)
        self._events = JsonLines(paths.events)
        self._metrics = JsonLines(paths.metrics)
        self._steps = steps
        self.failed = False
        self.recorded_processes: list[ProcessEntry] = []
        self._ends = False
        self.callbacks: list[Callback] = []

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event with the time in seconds since the epoch."""
        self._events.append({"time": time.time(), "kind": kind, **fields})

    def processes(self, entries: list[ProcessEntry]) -> None:
        """Record processes that the run needs from now on until it ends."""
        for entry in entries:
            self.event(events.PROCESS, **entry)
        self.recorded_processes += entries

    def closing(self, entries: list[ProcessEntry]) -> None:
        """Record that the run is about to end these processes itself, if it does not shut down anyway."""
        pids = [entry["pid"] for entry in entries]
        if pids and not self._ends:
            self._last_event(events.CLOSING, pids=pids)
        self.recorded_processes = [each for each in self.recorded_processes if each["pid"] not in pids]

    def error(self, error: events.ErrorFields) -> None:
        """Record why the run fails. Only the first error is recorded: later ones are consequences."""
        if not self.failed:
            self.failed = True
            self._last_event(events.ERROR, error=error)

    def ending(self, done: bool) -> None:
        """Record that from now on processes exit because the run shuts down, its work ``done`` or not."""
        if not self._ends:
            self._ends = True
            try:
                for callback in self.callbacks:
                    callback.on_ending(done)
            finally:
                # Only now: the supervisor gives a run a few seconds after this event.
                self._last_event(events.ENDING, done=done)

    def _last_event(self, kind: str, **fields: Any) -> None:
        """Append an event. If that fails, print it: a full disk must not hide the error that is reported."""
        try:
            self.event(kind, **fields)
        except OSError as e:
            print(f"{e}; not written: {kind} {json.dumps(fields)}", file=sys.stderr)

    def warn(self, message: str) -> None:
        """Record a warning, and write it to the log of this process."""
        self.event(events.WARNING, message=message)
        print(f"warning: {message}", file=sys.stderr, flush=True)

    def starting(self, detail: str) -> None:
        """Record the current activity of the start-up."""
        self.enter(events.START_UP, detail=detail)

    def enter(self, phase: str, step: int = 0, detail: str = "") -> None:
        """Record which phase the run is in from now on, and mark it in the log of this process."""
        self.event(events.PHASE, phase=phase, step=step, steps=self._steps, detail=detail)
        mark_phase(phase, step, detail)
        for callback in self.callbacks:
            callback.on_phase(phase, step)

    @contextmanager
    def phase(self, name: str, step: int, row: dict[str, float]) -> Iterator[None]:
        """Enter a phase of a step and add its duration to the row."""
        self.enter(name, step)
        with timed(row, name):
            yield

    def response(self, scored: ScoredResponse, sample: bool) -> None:
        """Pass a scored response on to the callbacks, and record it as an event if it is a ``sample``."""
        if sample:
            self.event(
                events.SAMPLE,
                step=scored.step,
                prompt=scored.prompt,
                response=scored.text,
                label=scored.label,
                reward=scored.reward,
            )
        for callback in self.callbacks:
            callback.on_response(scored)

    def answer(self, name: str, scored: ScoredResponse) -> None:
        """Pass a scored answer to a problem of the evaluation set ``name`` on to the callbacks."""
        for callback in self.callbacks:
            callback.on_answer(name, scored)

    def baseline(self, row: dict[str, float]) -> None:
        """Record the evaluation before the first step, which has no row of metrics.

        Args:
            row: ``evaluation/score`` and the scores of the sets.
        """
        scores = {key: value for key, value in row.items() if key.endswith("/score")}
        self.event(events.EVALUATION, step=0, score=row[EVALUATION_SCORE], best=False, scores=scores)
        for callback in self.callbacks:
            callback.on_metrics({STEP: 0, **scores})

    def metrics(self, row: dict[str, float]) -> None:
        """Append the metrics of one step."""
        self._metrics.append(row)
        for callback in self.callbacks:
            callback.on_metrics(row)

    def rewind(self, step: int) -> None:
        """Remove the metrics after ``step`` and the incomplete line of a killed run."""
        self._metrics.close()
        rewind(self._metrics.path, step)
        self._metrics = JsonLines(self._metrics.path)

    def sync(self) -> None:
        """Wait until the metrics are on the disk."""
        self._metrics.sync()

    def close(self) -> None:
        """Close the files and the callbacks."""
        for callback in self.callbacks:
            callback.close()
        self._events.close()
        self._metrics.close()


@contextmanager
def timed(row: dict[str, float], phase: str) -> Iterator[None]:
    """Add the duration of the block to the seconds of a phase in a row of metrics."""
    start = time.perf_counter()
    yield
    key = seconds(phase)
    row[key] = row.get(key, 0.0) + time.perf_counter() - start


def rewind(path: Path, step: int) -> None:
    """Truncate a file of JSON lines, one or more for each step, before the first that is later or damaged."""
    kept = 0
    with path.open("rb+") as file:
        for line in file:
            found = _step_of(line)
            if found is None or found > step:
                break
            kept += len(line)
        file.truncate(kept)


def _step_of(line: bytes) -> int | None:
    """Return the step of a line; None for an incomplete or damaged one."""
    try:
        return int(json.loads(line)[STEP]) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None
