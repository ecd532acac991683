"""Follow a run through the two files it writes, ``events.jsonl`` and ``metrics.jsonl``, while they grow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """What is known of a run so far: its phase, its error, its restarts, and one row of metrics a step."""

    def __init__(self, run_dir: Path) -> None:
        self._events = LineFollower(run_dir / "events.jsonl")
        self._metrics = LineFollower(run_dir / "metrics.jsonl")
        self.phase = "start-up"
        self.detail = ""
        self.step = 0
        self.steps = 0
        self.error: dict[str, Any] | None = None
        self.restarts = 0
        self.restart_reason = ""
        self.rows: list[dict[str, float]] = []

    def read(self) -> bool:
        """Take in what was written since the last call. Returns whether that changed anything."""
        events, rows = self._events.read(), self._metrics.read()
        for event in events:
            if event["kind"] == "phase":
                self.phase, self.detail = event["phase"], event["detail"]
                self.step, self.steps = event["step"], event["steps"]
            elif event["kind"] == "error":
                self.error = event["error"]
            elif event["kind"] == "restart":
                self.restarts, self.restart_reason = event["attempt"], event["reason"]
        for row in rows:
            # A restarted run does steps again: what came of them before does not count.
            while self.rows and self.rows[-1]["step"] >= row["step"]:
                self.rows.pop()
            self.rows.append(row)
        return bool(events or rows)


class LineFollower:
    """Reads the whole JSON lines that a file has gained; half a line waits until its end is there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def read(self) -> list[dict[str, Any]]:
        """The objects written since the last call; none while the file does not exist."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._position:
                self._position = 0  # cut back by a run that goes on from an earlier step
            file.seek(self._position)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
