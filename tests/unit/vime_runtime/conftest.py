"""Fixtures of the trainer tests: rank processes, small checkpoints, a run configuration."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Listener, wait
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.run_config import RunConfig

from harness import script
from harness.needs import mounted_disk
from harness.ports import free_port
from harness.run_config import make_run_config

WORLD = 2
RANK_WORKER = script("runtime.rank_worker")


# How long ranks may take to fail after one that has: they wait for it in a collective, perhaps for ever.
GRACE = 10.0


class Ranks:
    """Processes that stay, so that each test does not import Megatron-core anew."""

    def __init__(self, socket_path: Path, count: int) -> None:
        self._socket_path = socket_path
        self._count = count
        self._environment = dict(os.environ)
        self._start()

    def run(self, function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
        """Call ``function(rank, world_size, "host:port", *args)`` on each rank; return what each returned."""
        import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
        master = f"127.0.0.1:{free_port()}"
        for rank in range(world_size):
            call = function, (rank, world_size, master, *args)
            self._connections[rank].send_bytes(cloudpickle.dumps(call))
        waiting = {self._connections[rank]: rank for rank in range(world_size)}
        results: dict[int, Any] = {}
        failure = ""
        while waiting and (ready := wait(waiting, GRACE if failure else None)):
            for connection in ready:
                rank = waiting.pop(connection)
                succeeded, results[rank] = _answer(connection)
                failure = failure or ("" if succeeded else f"rank {rank}: {results[rank]}")
        if failure:  # the next test starts with processes that are sound
            self._kill()
            self._start()
        assert not failure, failure
        return [results[rank] for rank in range(world_size)]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.wait(timeout=30)

    def _start(self) -> None:
        self._socket_path.unlink(missing_ok=True)
        with Listener(str(self._socket_path)) as listener:
            self._processes = [
                subprocess.Popen([sys.executable, RANK_WORKER, str(self._socket_path)], env=self._environment)
                for _ in range(self._count)
            ]
            self._connections = [listener.accept() for _ in range(self._count)]

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
        self.close()


def _answer(connection: Any) -> tuple[bool, Any]:
    import cloudpickle

    try:
        return cloudpickle.loads(connection.recv_bytes())
    except EOFError:
        return False, "the process died"


@pytest.fixture(scope="session")
def start_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ranks]]:
    """Start rank processes with the environment as it is; they end with the session."""
    started = []

    def start(count: int = WORLD) -> Ranks:
        started.append(Ranks(tmp_path_factory.mktemp("ranks") / "socket", count))
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
            "cluster": {"device": "cpu"},
            "model": {"path": str(model), "dtype": "float32"},
            "train": {
                "tensor_parallel": 1,
                "expert_parallel": 1,
                "tokens_per_micro_batch": 64,
                "recompute": False,
            },
            "rollout": {"temperature": 0.7},
            "algorithm": {
                "clip_low": 0.2,
                "clip_high": 0.28,
                "kl_coefficient": 0.0,
                "updates_per_step": 1,
            },
            "optimizer": {
                "lr": 1e-3,
                "beta1": 0.9,
                "beta2": 0.98,
                # Large, so that a gradient of rounding noise is not blown up to a full step.
                "eps": 1e-2,
                "weight_decay": 0.1,
                "clip_grad": 0.5,
                "warmup_steps": 2,
                "decay": "linear",
                "min_lr": 1e-4,
            },
            "memory": {"offload_dir": str(tmp_path)},
        }
        for path, value in changes.items():
            table, key = path.split("__")
            recipe[table][key] = value
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
