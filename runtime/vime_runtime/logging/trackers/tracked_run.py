"""Describe a run to a tracker, and define what every tracker does."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vime_runtime.spec.run_config import RunConfig


class RunTracker(Protocol):
    """Record the metrics of one run. The constructor of each tracker starts it."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Record finite numbers of one step."""

    def finish(self, done: bool) -> None:
        """End the record of the run, its work ``done`` or not."""


@dataclass(frozen=True)
class TrackedRun:
    """A run for a tracker.

    Attributes:
        name: name of the run directory.
        folder: where the tracker keeps its files.
        config: the resolved recipe as nested JSON values, without ``[env]``.
    """

    name: str
    project: str
    folder: Path
    config: dict[str, Any]

    @classmethod
    def of(cls, config: RunConfig, tracker: str) -> TrackedRun:
        """Describe a run for the tracker of this name, and make its folder."""
        folder = config.paths.trackers / tracker
        folder.mkdir(parents=True, exist_ok=True)
        # [env] may hold secrets, and only the tool can tell which.
        recipe = config.recipe.model_dump(mode="json", exclude={"env"})
        more = {"mode": config.mode, "steps": config.steps}
        project = config.recipe.watch.project
        return cls(config.paths.run_dir.name, project, folder, {**recipe, **more})

    @property
    def flat_config(self) -> dict[str, str | int | float | bool]:
        """The configuration with one key for each value: ``{"rollout.temperature": 1.0, ...}``."""
        flat: dict[str, str | int | float | bool] = {}

        def add(prefix: str, value: Any) -> None:
            if isinstance(value, dict):
                for key, inner in value.items():
                    add(f"{prefix}.{key}" if prefix else key, inner)
            elif isinstance(value, (str, int, float, bool)):
                flat[prefix] = value
            elif value is not None:
                flat[prefix] = json.dumps(value)

        add("", self.config)
        return flat

    @property
    def id(self) -> str | None:
        """The id of the run in the tracker, which an earlier attempt has kept; None in the first attempt."""
        return self._id_file.read_text(encoding="ascii") if self._id_file.exists() else None

    def keep_id(self, chosen: str | None = None) -> str:
        """Keep the id that the tracker has ``chosen``, or a random one, for later attempts. Returns it."""
        chosen = chosen or uuid.uuid4().hex[:16]
        self._id_file.write_text(chosen, encoding="ascii")
        return chosen

    @property
    def _id_file(self) -> Path:
        return self.folder / "run-id"
