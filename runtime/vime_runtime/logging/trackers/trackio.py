"""Trackio: an SQLite file, by default in the run directory, or the space of ``TRACKIO_SPACE_ID``."""

from __future__ import annotations

import os

from vime_runtime.logging.trackers.tracked_run import RunTracker, TrackedRun


class TrackioTracker(RunTracker):
    """Log to a run of Trackio; a resumed run continues it."""

    def __init__(self, run: TrackedRun) -> None:
        # Trackio reads it when it is imported.
        os.environ.setdefault("TRACKIO_DIR", str(run.folder.absolute()))
        import trackio

        resume = "never" if run.id is None else "allow"
        self._run = trackio.init(run.project, name=run.name, config=run.config, resume=resume, embed=False)
        run.keep_id(self._run.id)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Hand the metrics of one step to Trackio's thread, which sends or writes them."""
        self._run.log(metrics, step=step)

    def finish(self, done: bool) -> None:
        """Wait until everything is written. Trackio does not know how a run ended."""
        self._run.finish()
