"""Real engines, each in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import pytest

from harness import script
from harness.run_config import make_run_config
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


class EngineProcess:
    """An Engine in another process; attributes call its methods, by dotted path also those of its parts."""

    def __init__(self, model: Path, socket_path: Path, tensor_parallel: int, dtype: str) -> None:
        self._shared_memory = SharedMemoryWatch()
        cores = {"VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(tensor_parallel)))}
        with Listener(str(socket_path)) as listener:
            self.process = subprocess.Popen(
                [sys.executable, script("runtime.engine_process"), str(socket_path)],
                env=os.environ | ENVIRONMENT | cores | {"VLLM_RPC_BASE_PATH": str(socket_path.parent)},
            )
            self._connection = listener.accept()
        self._connection.send(make_run_config({"recipe": recipe(model, tensor_parallel, dtype)}))
        self._result()
        self._shared_memory.update(all_files=True)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._connection.send((method, args, kwargs))
            return self._result()

        return call

    def _result(self) -> Any:
        succeeded, result = self._connection.recv()
        if not succeeded:
            raise RuntimeError(result)
        return result

    def hang_up(self) -> None:
        self._connection.close()

    def wait(self) -> None:
        assert self.process.wait(timeout=60) == 0
        # A worker that is interrupted leaves its files, which a concurrent run must not see.
        self._shared_memory.remove_unused()


def recipe(model: Path, tensor_parallel: int, dtype: str) -> dict[str, Any]:
    return {
        "cluster": {"device": "cpu"},
        "model": {"path": str(model), "dtype": dtype},
        "rollout": {
            "tensor_parallel": tensor_parallel,
            "expert_parallel": False,
            "max_prompt_tokens": 16,
            "max_response_tokens": RESPONSE_TOKENS,
            "temperature": 0.7,
            "top_p": 1.0,
            "gpu_memory_utilization": 0.6,
            "kv_cache_bytes": 16 * 1024**2,
        },
        "algorithm": {"seed": 0},
    }


@pytest.fixture(scope="module")
def start_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., EngineProcess]]:
    """Start engines that are stopped at the end of the module."""
    started = []

    def start(model: Path, tensor_parallel: int = 1, dtype: str = "float32") -> EngineProcess:
        socket_path = tmp_path_factory.mktemp("engine") / "socket"
        started.append(EngineProcess(model, socket_path, tensor_parallel, dtype))
        return started[-1]

    yield start
    for engine in started:
        engine.hang_up()
    for engine in started:
        engine.wait()
