"""Weights & Biases, online or with ``WANDB_MODE=offline``."""

from __future__ import annotations

import wandb

from vime_runtime.logging.trackers.tracked_run import RunTracker, TrackedRun
from vime_runtime.spec.metrics import STEP


class WandbTracker(RunTracker):
    """Log to a run of Weights & Biases; a resumed run continues it.

    The steps are a metric that all others are drawn over: W&B drops rows below its latest internal step,
    and a resumed run repeats some.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.id or run.keep_id(),
            resume="allow",
            dir=str(run.folder),
            config=run.config,
            # The logs of the run are in its directory, and W&B would redirect the output of this process.
            settings=wandb.Settings(console="off"),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Hand the metrics of one step to W&B's own process, which sends or writes them."""
        self._run.log({STEP: step, **metrics})

    def finish(self, done: bool) -> None:
        """Wait until everything is sent, and mark the run finished or failed."""
        self._run.finish(exit_code=0 if done else 1)
