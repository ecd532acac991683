"""Follow a run through the two files it writes, ``events.jsonl`` and ``metrics.jsonl``, while they grow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """What is known of a run so far: its phase, its error, and one row of metrics a step."""

    def __init__(self, run_dir: Path) -> None:
        self._events = LineFollower(run_dir / "events.jsonl")
        self._metrics = LineFollower(run_dir / "metrics.jsonl")
        self.phase = "start-up"
        self.detail = ""
        self.step = 0
        self.steps = 0
        self.error: dict[str, Any] | None = None
        self.rows: list[dict[str, float]] = []
        self.scores: dict[int, float] = {}  # of the evaluated steps; 0 is before the first

    def read(self) -> bool:
        """Take in what was written since the last call. Returns whether that changed anything."""
        events, rows = self._events.read(), self._metrics.read()
        for event in events:
            if event["kind"] == "phase":
                self.phase, self.detail = event["phase"], event["detail"]
                self.step, self.steps = event["step"], event["steps"]
                if self.phase == "start-up":
                    self.error = None  # it was of a start before this one
            elif event["kind"] == "evaluation":
                self.scores[event["step"]] = event["score"]
            elif event["kind"] == "error":
                self.error = event["error"]
        if self._metrics.restarted:
            self.rows = []
        self.rows += rows
        return bool(events or rows or self._metrics.restarted)


class LineFollower:
    """Reads the whole JSON lines that a file has gained; half a line waits until its end is there.

    ``restarted`` is whether the last call met another file under the name and read it from its beginning:
    a run that goes on from an earlier step puts a shorter one in place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self._file = 0  # the inode
        self.restarted = False

    def read(self) -> list[dict[str, Any]]:
        """The objects written since the last call; none while the file does not exist."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            self.restarted = self._file not in (0, inode)
            self._file = inode
            if self.restarted:
                self._position = 0
            file.seek(self._position)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
