"""What a run tells the world while it goes on: events.jsonl and metrics.jsonl in the run directory.

Each line is one JSON object, written whole and flushed, so that a reader may follow the
files of a living run and a killed run loses at most the line it was writing.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vime_runtime.rollout.response import Response
from vime_runtime.spec import atomic_io


class Callback:
    """Hears of everything the journal hears of. By itself it does nothing."""

    def enter(self, phase: str, step: int, detail: str) -> None:
        """The run is in this phase from now on."""

    def rollout(
        self, step: int, group: int, prompt: str, label: str, response: Response, text: str, reward: float
    ) -> None:
        """A response was scored; ``text`` is what its tokens say."""

    def metrics(self, row: dict[str, float]) -> None:
        """A step is done."""

    def close(self) -> None:
        """The run ends."""


class EventLog:
    """Writes the two files of one run and keeps the clock of its phases."""

    def __init__(self, run_dir: Path, steps: int) -> None:
        self._events = _Lines(run_dir / "events.jsonl")
        self._metrics = _Lines(run_dir / "metrics.jsonl")
        self._steps = steps
        self._failed = False
        self._ends = False
        self.watchers: list[Callback] = []

    def event(self, kind: str, **fields: Any) -> None:
        """Append one event, stamped with the time in seconds since the epoch."""
        self._events.append({"time": time.time(), "kind": kind, **fields})

    def processes(self, entries: list[dict[str, Any]]) -> None:
        """Say that the run has these processes from now on, and needs them until it ends."""
        for entry in entries:
            self.event("process", **entry)

    def error(self, kind: str, message: str, hint: str = "", pid: int | None = None) -> None:
        """Say why the run fails. The first word counts: what comes after it is a consequence.

        ``pid`` is the process that the error says is gone.
        """
        if not self._failed:
            self._failed = True
            self._last_words("error", error={"kind": kind, "message": message, "hint": hint, "pid": pid})

    def ending(self, done: bool) -> None:
        """Say that from now on processes go because the run takes itself down; ``done``: it did its work."""
        if not self._ends:
            self._ends = True
            self._last_words("ending", done=done)

    def _last_words(self, kind: str, **fields: Any) -> None:
        """An event whose failure must not hide what it was to tell, say on a full disk."""
        try:
            self.event(kind, **fields)
        except OSError as e:
            print(f"{e}; not written: {kind} {json.dumps(fields)}", file=sys.stderr)

    def warn(self, message: str) -> None:
        """Say during start-up what people should know, where they see it: as an event and as the detail."""
        self.event("warning", message=message)
        self.enter("start-up", detail=message)

    def enter(self, phase: str, step: int = 0, detail: str = "") -> None:
        """Say which phase the run is in from now on."""
        self.event("phase", phase=phase, step=step, steps=self._steps, detail=detail)
        for watcher in self.watchers:
            watcher.enter(phase, step, detail)

    @contextmanager
    def phase(self, name: str, step: int, timings: dict[str, float]) -> Iterator[None]:
        """Announce a phase and add the seconds it took to ``timings["<name>/seconds"]``."""
        self.enter(name, step)
        with clock(timings, name):
            yield

    def metrics(self, row: dict[str, float]) -> None:
        """Append the metrics of one step."""
        self._metrics.append(row)
        for watcher in self.watchers:
            watcher.metrics(row)

    def rollout(
        self, step: int, group: int, prompt: str, label: str, response: Response, text: str, reward: float
    ) -> None:
        """Tell the watchers of one scored response; the journal itself keeps a sample of each group."""
        for watcher in self.watchers:
            watcher.rollout(step, group, prompt, label, response, text, reward)

    def rewind(self, step: int) -> None:
        """Drop the metrics after ``step``, and what a killed run tore; in one go or not at all."""
        path = self._metrics.path
        self._metrics.close()
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        atomic_io.write_text_atomically(path, "".join(line for line in lines if 0 < _step_of(line) <= step))
        self._metrics = _Lines(path)

    def sync(self) -> None:
        """Return when the metrics so far are on the disk."""
        self._metrics.sync()

    def close(self) -> None:
        """Close both files, and what the watchers keep."""
        for watcher in self.watchers:
            watcher.close()
        self._events.close()
        self._metrics.close()


@contextmanager
def clock(timings: dict[str, float], key: str) -> Iterator[None]:
    """Add the seconds spent inside to ``timings["<key>/seconds"]``."""
    start = time.perf_counter()
    yield
    name = f"{key}/seconds"
    timings[name] = timings.get(name, 0.0) + time.perf_counter() - start


def _step_of(line: str) -> int:
    """The step of a row; 0 when it is not whole."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else 0
    except (ValueError, KeyError, TypeError):
        return 0


class _Lines:
    """A file of JSON lines, appended to without a buffer: what did not fit on the disk is not tried again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A process that was killed, or a full disk, may have left half a line.
        self._torn = _is_torn(path)
        self._file = path.open("ab", buffering=0)

    def append(self, row: dict[str, Any]) -> None:
        """Write one line whole. Raises OSError with the path."""
        line = b"\n" * self._torn + json.dumps(row).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as e:
            raise OSError(e.errno, e.strerror, str(self.path)) from None
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def sync(self) -> None:
        """Return when the lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _is_torn(path: Path) -> bool:
    if not path.exists() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
