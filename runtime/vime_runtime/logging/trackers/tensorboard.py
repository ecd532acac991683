"""TensorBoard event files. TensorBoard's own writer needs neither TensorFlow nor torch."""

from __future__ import annotations

import time

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from vime_runtime.logging.trackers.tracked_run import RunTracker, TrackedRun


class TensorBoardTracker(RunTracker):
    """Write every metric of a step as a scalar of the same name, to one file per attempt of the run."""

    def __init__(self, run: TrackedRun) -> None:
        self._folder = run.folder
        self._writer: EventFileWriter | None = None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of one step; they are on disk when this returns."""
        if self._writer is None:
            self._writer = EventFileWriter(str(self._folder))
            # Readers then drop what an earlier attempt wrote of this step and later ones.
            self._writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))
        values = [Summary.Value(tag=key, simple_value=value) for key, value in metrics.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()

    def finish(self, done: bool) -> None:
        """Close the file. It does not say how the run ended."""
        if self._writer:
            self._writer.close()
