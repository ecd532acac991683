"""MLflow: the server of ``MLFLOW_TRACKING_URI``, or an SQLite file in the run directory."""

from __future__ import annotations

import os
import time

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from vime_runtime.logging.trackers.tracked_run import RunTracker, TrackedRun

# Limits of a batch of parameters and of the length of one: mlflow.utils.validation.
_PARAMS_PER_BATCH = 100
_PARAM_LENGTH = 6000


class MlflowTracker(RunTracker):
    """Log to a run of MLflow; a resumed run continues it."""

    def __init__(self, run: TrackedRun) -> None:
        local = f"sqlite:///{run.folder.absolute() / 'mlflow.db'}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        if run.id:
            self._id = run.id
            self._client.update_run(self._id, "RUNNING")
        else:
            self._id = run.keep_id(self._create(run))

    def _create(self, run: TrackedRun) -> str:
        experiment = self._client.get_experiment_by_name(run.project)
        experiment_id = (
            experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        )
        run_id = str(self._client.create_run(experiment_id, run_name=run.name).info.run_id)
        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in run.flat_config.items()]
        for start in range(0, len(params), _PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
        return run_id

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Write the metrics of one step. MLflow keeps all values of a repeated step, the latest last."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(key, value, now, step) for key, value in metrics.items()])

    def finish(self, done: bool) -> None:
        """Mark the run finished or failed."""
        self._client.set_terminated(self._id, "FINISHED" if done else "FAILED")
