"""Fixtures of the trainer tests: rank processes, small checkpoints, a run configuration."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.run_config import RunConfig

from harness.needs import mounted_disk
from harness.run_config import make_run_config
from harness.runtime.rank_processes import Process, on_each

WORLD = 2


class Ranks:
    """Rank processes with the environment as it is when they are first started."""

    def __init__(self, directory: Path, count: int) -> None:
        self._directory = directory
        self._environment = dict(os.environ)
        self._processes = self._start(count)

    def run(self, function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        """Call ``function(rank, world_size, store, *args)`` as ``on_each`` does; return the results."""
        try:
            return on_each(self._processes[:world_size], function, *args)
        except AssertionError:  # the next test starts with processes that are sound
            for process in self._processes:
                process.popen.kill()
            self.close()
            self._processes = self._start(len(self._processes))
            raise

    def close(self) -> None:
        for process in self._processes:
            process.close()

    def _start(self, count: int) -> list[Process]:
        return [Process(self._directory, self._environment) for _ in range(count)]


@pytest.fixture(scope="session")
def start_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ranks]]:
    """Start rank processes with the environment as it is; they end with the session."""
    started = []

    def start(count: int = WORLD) -> Ranks:
        started.append(Ranks(tmp_path_factory.mktemp("ranks"), count))
        return started[-1]

    yield start
    for workers in started:
        workers.close()


@pytest.fixture(scope="session")
def ranks(start_ranks: Callable[..., Ranks]) -> Ranks:
    return start_ranks()


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., RunConfig]:
    """A run file that trains the given model; keyword arguments ``table__key`` change the recipe."""

    def make(model: Path, **changes: Any) -> RunConfig:
        recipe: dict[str, dict[str, Any]] = {
            "model": {"path": str(model)},
            "rollout": {"temperature": 0.7},
            "optimizer": {
                # Large, so that a gradient of rounding noise is not blown up to a full step.
                "eps": 1e-2,
                "clip_grad": 0.5,
                "warmup_steps": 2,
                "decay": "linear",
                "min_lr": 1e-4,
            },
            "memory": {"offload_dir": str(tmp_path)},
        }
        for path, value in changes.items():
            table, key = path.split("__")
            recipe.setdefault(table, {})[key] = value
        return make_run_config({"recipe": recipe, "run_dir": str(tmp_path)})

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., RolloutBatch]:
    """A rollout of random tokens; the same seed gives the same."""

    def make(seed: int = 0, groups: int = 4, samples: int = 4, vocabulary: int = 64) -> RolloutBatch:
        draw = random.Random(seed)
        batch = RolloutBatch()
        for group in range(groups):
            prompt = [draw.randrange(vocabulary) for _ in range(draw.randint(2, 6))]
            for _ in range(samples):
                response = [draw.randrange(vocabulary) for _ in range(draw.randint(1, 7))]
                batch.append(prompt, response, [draw.uniform(-6, -2) for _ in response], draw.random(), group)
        return batch

    return make


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB; needs root."""
    with mounted_disk(tmp_path / "disk", size="4m") as disk:
        yield disk
