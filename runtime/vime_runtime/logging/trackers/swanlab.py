"""SwanLab, online or with ``SWANLAB_MODE=offline`` or ``local``."""

from __future__ import annotations

import swanlab

from vime_runtime.logging.trackers.tracked_run import RunTracker, TrackedRun


class SwanlabTracker(RunTracker):
    """Log to a run of SwanLab; a resumed run continues it if it is online."""

    def __init__(self, run: TrackedRun) -> None:
        self._run = swanlab.init(
            project=run.project,
            name=run.name,
            id=run.id or run.keep_id(),
            resume="allow",
            log_dir=str(run.folder),
            config=run.config,
            settings=swanlab.Settings(interactive=False, terminal={"proxy_type": "none"}),
        )

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Hand the metrics of one step to SwanLab's threads, which send or write them."""
        self._run.log(metrics, step=step)

    def finish(self, done: bool) -> None:
        """Wait until everything is sent, and mark the run finished or failed."""
        if done:
            self._run.finish()
        else:
            self._run.finish(state="crashed", error="the run did not finish")
