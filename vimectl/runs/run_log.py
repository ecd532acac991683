"""Follow a run through the two files it writes, ``events.jsonl`` and ``metrics.jsonl``, while they grow."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Journal:
    """What is known of a run so far: its phase, its error, and one row of metrics a step.

    A run that was started again goes on in the same files: what was said of the processes, the error and the
    end before is void then, and of the rows those count that are still in the file.
    """

    def __init__(self, run_dir: Path) -> None:
        self._events = LineFollower(run_dir / "events.jsonl")
        self._metrics = LineFollower(run_dir / "metrics.jsonl")
        self.phase = "start-up"
        self.detail = ""
        self.step = 0
        self.steps = 0
        self.restarts = 0
        self.restart_reason = ""
        self.rows: list[dict[str, float]] = []
        self.scores: dict[int, float] = {}  # of the evaluated steps; 0 is before the first
        self._begin()

    def _begin(self) -> None:
        self.error: dict[str, Any] | None = None
        self.processes: list[dict[str, Any]] = []
        self.ending = False
        self.done = False

    def read(self) -> bool:
        """Take in what was written since the last call. Returns whether that changed anything."""
        events = self._events.read()
        for event in events:
            self._take(event)
        rows = self._metrics.read()
        if self._metrics.began_anew:
            self.rows.clear()
        for row in rows:
            while self.rows and self.rows[-1]["step"] >= row["step"]:  # this one replaces them
                self.rows.pop()
            self.rows.append(row)
        return bool(events or rows)

    def _take(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "phase":
                self.phase, self.detail = event["phase"], event["detail"]
                self.step, self.steps = event["step"], event["steps"]
            case "evaluation":
                self.scores[event["step"]] = event["score"]
            case "process":
                self.processes.append(event)
            case "error":
                self.error = event["error"]
            case "ending":
                self.ending, self.done = True, event["done"]
            case "restart":
                self._begin()
                self.phase, self.detail = "restart", event["reason"]
                self.restarts, self.restart_reason = event["attempt"], event["reason"]


class LineFollower:
    """Reads the whole JSON lines that a file has gained; half a line waits until its end is there.

    A line that is no JSON is left out: a process that was killed, or a full disk, may have cut it off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._file = 0  # the inode
        self.began_anew = False

    def read(self) -> list[dict[str, Any]]:
        """The objects written since the last call; none while the file does not exist.

        When the file has become shorter, or is another one, all of its objects: ``began_anew`` tells.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._file or status.st_size < self._position:
                self._file, self._position = status.st_ino, 0
            self.began_anew = self._position == 0
            file.seek(self._position)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return [row for line in whole.splitlines() if (row := _object(line)) is not None]


def append_event(run_dir: Path, kind: str, **fields: Any) -> None:
    """Append one event while the runtime does not run. Raises OSError."""
    line = json.dumps({"time": time.time(), "kind": kind, **fields}) + "\n"
    with (run_dir / "events.jsonl").open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # half a line of a runtime that was killed
                line = "\n" + line
        file.write(line.encode())


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
