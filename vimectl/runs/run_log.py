"""Follow a run through the two files that it writes while it runs, ``events.jsonl`` and ``metrics.jsonl``.

Statistics over its steps are for the summary and the report page.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from vime_runtime.spec import events, metrics
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.json_files import JsonLines, parse_json
from vime_runtime.spec.regular_files import open_regular
from vime_runtime.spec.run_paths import RunPaths

# reward_first and reward_last are means over this many steps.
REWARD_WINDOW = 5
# A response has megabytes at most.
MAX_LINE_BYTES = 64 * 2**20


class RunLog:
    """The state of a run as its files show it: phase, processes, error, and one row of metrics per step.

    A runtime that is started again appends to the same files: processes, error and ending of the earlier
    start are dropped then. A repeated step replaces its earlier row and score and those of all later steps.
    Lines of unknown kinds and lines without the fields of their kind are ignored.
    """

    def __init__(self, run_dir: Path) -> None:
        paths = RunPaths(run_dir)
        self._events = JsonLineFollower(paths.events)
        self._metrics = JsonLineFollower(paths.metrics)
        self.phase = events.START_UP
        self.detail = ""
        self.step = 0
        self.steps = 0
        self.restarts = 0
        self.restart_reason = ""
        self.rows: list[dict[str, Any]] = []
        self.scores: dict[int, float] = {}  # by evaluated step; 0 is before the first step
        self.set_scores: dict[int, dict[str, float]] = {}  # the same for each evaluation set
        self.warnings: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self._latest_step = 0.0
        self.error: dict[str, Any] | None = None
        self.processes: list[dict[str, Any]] = []
        self.closed: set[int] = set()  # the process ids of those that the run itself ends
        self.ending = False
        self.done = False

    def read(self) -> bool:
        """Read what was written since the last call. Returns True if there was anything."""
        return sum(1 for _ in self.replay()) > 0

    def replay(self) -> Iterator[None]:
        """Read as ``read`` does, and yield after each event and each row, in the order of the run.

        A row has no time. It comes before the events of later steps.
        """
        found = [event for _, event in self._events.read()]
        rows = deque(row for _, row in self._metrics.read())
        if self._metrics.restarted:
            self.rows.clear()
        for event in found:
            while rows and self._precedes(rows[0], event):
                self._add_row(rows.popleft())
                yield
            self._apply(event)
            yield
        for row in rows:
            self._add_row(row)
            yield

    def _precedes(self, row: dict[str, Any], event: dict[str, Any]) -> bool:
        """Return True if a row is of this start of the runtime and of a step before that of an event."""
        step = finite_number(row.get(metrics.STEP))
        match event:
            case {"kind": events.PHASE, "phase": events.SAVE | events.STOP | events.DONE, "step": int(end)}:
                before = end + 1
            case {"kind": events.RESTART, "step": int(end)}:
                before = end + 1
            case {"kind": events.PHASE, "step": int(before)}:
                pass
            case _:
                return False
        return step is None or self._latest_step < step < before

    @property
    def last_row(self) -> dict[str, Any] | None:
        """The metrics of the last step; None before the first."""
        return self.rows[-1] if self.rows else None

    def _add_row(self, row: dict[str, Any]) -> None:
        step = finite_number(row.get(metrics.STEP))
        if step is None:
            return
        while self.rows and self.rows[-1][metrics.STEP] >= step:
            self.rows.pop()
        self.rows.append(row)
        self._latest_step = step
        self._add_scores(int(step), row)

    def _add_scores(self, step: int, row: dict[str, Any]) -> None:
        """Keep the scores that a row of metrics has."""
        if (score := finite_number(row.get(metrics.EVALUATION_SCORE))) is not None:
            self.scores[step] = score
        numbers = {key: finite_number(row[key]) for key in row}
        sets = {metrics.evaluation_set(key): number for key, number in numbers.items() if number is not None}
        if found := {name: number for name, number in sets.items() if name is not None}:
            self.set_scores[step] = found

    def _apply(self, event: dict[str, Any]) -> None:
        match event:
            case {"kind": events.PHASE, "phase": str(phase), "step": int(step)}:
                self.phase, self.detail = phase, str(event.get("detail", ""))
                self.step, self.steps = step, event.get("steps", self.steps)
                if phase == metrics.ROLLOUT:
                    self.scores = {n: score for n, score in self.scores.items() if n < step}
                    self.set_scores = {n: found for n, found in self.set_scores.items() if n < step}
            case {"kind": events.EVALUATION, "step": int(step), "score": score}:
                if (number := finite_number(score)) is not None:
                    self.scores[step] = number
                if isinstance(scores := event.get("scores"), dict):
                    self._add_scores(step, scores)
            case {"kind": events.WARNING, "message": str(message)}:
                self.warnings.append(message)
            case {"kind": events.PROCESS, "role": _, "rank": _, "pid": int(), "node": _}:
                self.processes.append(event)
            case {"kind": events.CLOSING, "pids": list(pids)}:
                self.closed.update(pid for pid in pids if isinstance(pid, int))
            case {"kind": events.ERROR, "error": dict(error)}:
                self.error = error
            case {"kind": events.ENDING, "done": bool(done)}:
                self.ending, self.done = True, done
            case {"kind": events.RESTART, "attempt": int(attempt), "reason": str(reason)}:
                self._reset()
                self.phase, self.detail = events.RESTART, reason
                self.restarts, self.restart_reason = attempt, reason


class JsonLineFollower:
    """Read the JSON objects that a file of lines has gained; an incomplete last line waits for its end.

    A line that is not a JSON object is skipped: a killed process or a full disk may have cut it off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._inode = 0
        self.restarted = False

    def read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the objects written since the last call, each with the offset of its line in bytes.

        If the file has become shorter or was replaced, all of its objects; ``restarted`` is true then.
        Nothing while the file does not exist.

        Raises:
            UsageError: it is not a regular file, or cannot be read.
        """
        try:
            opened = open_regular(self._path)
        except FileNotFoundError:
            return
        except OSError as e:
            raise UsageError(f"{self._path}: cannot be read: {e.strerror}", "restore the file") from e
        with opened as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._position:
                self._inode, self._position = status.st_ino, 0
            self.restarted = self._position == 0
            file.seek(self._position)
            for line in bounded_lines(file):
                if line and not line.endswith(b"\n"):
                    return
                offset, self._position = self._position, file.tell()
                if (found := parse_object(line)) is not None:
                    yield offset, found


def bounded_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file; an empty one in the place of a line that is longer than any of a run."""
    while line := file.readline(MAX_LINE_BYTES):
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            line = b""
        yield line


def run_statistics(log: RunLog) -> dict[str, Any]:
    """Return statistics over all steps of a run. Those of metrics that no step has are None.

    ``best_step`` is the first step with the highest score, as in the runtime. It is never step 0, the model
    before training.
    """
    rewards = _column(log, metrics.REWARD_MEAN)
    rates = [rate for row in log.rows if (rate := tokens_per_second(row)) is not None]
    scores = log.scores
    best = max((step for step in sorted(scores) if step), key=lambda step: scores[step], default=None)
    return {
        "reward_first": _mean(rewards[:REWARD_WINDOW]),
        "reward_last": _mean(rewards[-REWARD_WINDOW:]),
        "evaluation_first": scores[min(scores)] if scores else None,
        "evaluation_best": None if best is None else scores[best],
        "best_step": best,
        "step_seconds_mean": _mean(_column(log, metrics.seconds(metrics.WHOLE_STEP))),
        "sync_seconds_mean": _mean(_column(log, metrics.seconds(metrics.SYNC))),
        "tokens_per_second_mean": _mean(rates),
        "logprob_abs_diff_mean_worst": max(_column(log, metrics.LOGPROB_ABS_DIFF_MEAN), default=None),
        "peak_memory_bytes": max(_column(log, metrics.PEAK_BYTES), default=0),
    }


def phase_shares(log: RunLog) -> dict[str, float]:
    """Return the share of each phase in the time of all steps, the largest first, and ``other`` last.

    Steps with an incomplete row are left out. Empty without steps.
    """
    suffix = metrics.seconds("")
    whole_key = metrics.seconds(metrics.WHOLE_STEP)
    rows = [row for row in log.rows if finite_number(row.get(whole_key))]
    total = sum(row[whole_key] for row in rows)
    seconds: dict[str, float] = {}
    for row in rows:
        for key in row:
            if key.endswith(suffix) and key != whole_key:
                phase = key.removesuffix(suffix)
                seconds[phase] = seconds.get(phase, 0.0) + (finite_number(row[key]) or 0.0)
    found = {phase: part / total for phase, part in seconds.items()}
    shares = dict(sorted(found.items(), key=lambda item: item[1], reverse=True))
    return {**shares, "other": max(0.0, 1.0 - sum(found.values()))} if rows else {}


def _column(log: RunLog, key: str) -> list[float]:
    """Return the finite values of one metric, step by step."""
    return [value for row in log.rows if (value := finite_number(row.get(key))) is not None]


def tokens_per_second(row: dict[str, Any]) -> float | None:
    """Return the response tokens sampled per second of generation; None if that is unknown."""
    tokens = finite_number(row.get(metrics.ROLLOUT_TOKENS))
    seconds = finite_number(row.get(metrics.seconds(metrics.ROLLOUT)))
    return tokens / seconds if tokens is not None and seconds else None


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def append_event(run_dir: Path, kind: str, **fields: Any) -> None:
    """Append one event while the runtime does not run. Raises OSError."""
    with closing(JsonLines(RunPaths(run_dir).events)) as lines:
        lines.append({"time": time.time(), "kind": kind, **fields})


def finite_number(value: Any) -> float | None:
    """Return a finite number as float, and None for any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer larger than every float
        return None


def parse_object(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None without one."""
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
