"""Real engines, each in its own process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from vime_runtime.spec.run_config import RunConfig

from harness.run_config import make_run_config
from harness.runtime.rank_processes import Process
from vimectl.runs.descendants import SharedMemoryWatch

RESPONSE_TOKENS = 12
# What vimectl's environment table sets for the rollout on a CPU machine.
ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "VIME_COLOCATE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "vime_runtime",
}


def start(config: RunConfig) -> None:
    """Build the engine of this process."""
    from vime_runtime.rollout import engine

    engine.started = engine.Engine(config)


def call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method of the engine of this process."""
    from vime_runtime.rollout import engine

    return attrgetter(method)(engine.started)(*args, **kwargs)


class EngineProcess:
    """An Engine in another process, because vLLM pins threads to cores and changes torch.

    Attributes call its methods, by dotted path also those of its parts.
    """

    def __init__(
        self, model: Path, directory: Path, tensor_parallel: int, dtype: str, per_request_seeds: bool
    ) -> None:
        self._shared_memory = SharedMemoryWatch()
        cores = {"VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(tensor_parallel)))}
        self.process = Process(
            directory, os.environ | ENVIRONMENT | cores | {"VLLM_RPC_BASE_PATH": str(directory)}
        )
        recipe = {
            "model": {"path": str(model), "dtype": dtype},
            "rollout": {
                "tensor_parallel": tensor_parallel,
                "max_prompt_tokens": 16,
                "max_response_tokens": RESPONSE_TOKENS,
                "temperature": 0.7,
                "per_request_seeds": per_request_seeds,
            },
        }
        self.process.run(start, make_run_config({"recipe": recipe}))
        self._shared_memory.update(all_files=True)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.process.run(call, method, args, kwargs)

    def stop(self) -> None:
        self.process.run(call, "close", (), {})
        self.process.close()
        # A worker that is interrupted leaves its files, which a concurrent run must not see.
        self._shared_memory.remove_unused()


@pytest.fixture(scope="module")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., EngineProcess]]:
    """Start engines that are stopped at the end of the module."""
    started = []

    def start(
        model: Path, tensor_parallel: int = 1, dtype: str = "float32", per_request_seeds: bool = True
    ) -> EngineProcess:
        directory = tmp_path_factory.mktemp("engine")
        started.append(EngineProcess(model, directory, tensor_parallel, dtype, per_request_seeds))
        return started[-1]

    yield start
    for engine in started:
        engine.stop()
