"""TensorBoard event files. TensorBoard's own writer needs neither TensorFlow nor torch."""

from __future__ import annotations

import math
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from vime_runtime.logging.event_log import Callback
from vime_runtime.spec.metrics import STEP


class TensorBoardWriter(Callback):
    """Write every metric of a step as a scalar of the same name, to one file per attempt of the run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: EventFileWriter | None = None

    def on_metrics(self, row: dict[str, float]) -> None:
        """Write the metrics of one step; they are on disk when this returns."""
        step = int(row[STEP])
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder))
            # Readers then drop what an earlier attempt wrote of this step and later ones.
            self._writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        values = [
            Summary.Value(tag=key, simple_value=value)
            for key, value in row.items()
            if key != STEP and math.isfinite(value)
        ]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer:
            self._writer.close()
