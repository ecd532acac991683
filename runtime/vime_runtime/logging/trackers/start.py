"""Start the trackers of a recipe."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial

from vime_runtime.logging.event_log import Callback
from vime_runtime.logging.trackers.background import BackgroundTracker
from vime_runtime.logging.trackers.tracked_run import RunTracker, TrackedRun
from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import Tracker
from vime_runtime.spec.run_config import RunConfig

# The class of each, in the module of its name: a module imports its tracker's package.
_CLASSES: dict[Tracker, str] = {
    "tensorboard": "TensorBoardTracker",
    "wandb": "WandbTracker",
    "mlflow": "MlflowTracker",
    "swanlab": "SwanlabTracker",
    "trackio": "TrackioTracker",
}


def start_trackers(config: RunConfig, warn: Callable[[str], None]) -> list[Callback]:
    """Start every tracker of ``[watch]`` and return it as a callback.

    Args:
        warn: called when a tracker fails during the run.

    Raises:
        UsageError: a tracker is not installed or cannot start.
    """
    started: list[Callback] = []
    try:
        for name in dict.fromkeys(config.recipe.watch.trackers):
            started.append(BackgroundTracker(name, partial(_make, name, config), warn))
    except BaseException:
        for callback in started:
            callback.on_ending(False)
        raise
    return started


def _make(name: Tracker, config: RunConfig) -> RunTracker:
    try:
        module = importlib.import_module(f"vime_runtime.logging.trackers.{name}")
        tracker: RunTracker = getattr(module, _CLASSES[name])(TrackedRun.of(config, name))
    except ImportError as e:
        message = f"watch.trackers has {name}, which cannot be imported: {e}"
        hint = f'{sys.executable} -m pip install "vimectl[{name}]", or leave it out of watch.trackers'
        raise UsageError(message, hint) from e
    return tracker
