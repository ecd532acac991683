"""A real engine in its own process, as tests use it."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import isgenerator
from operator import attrgetter
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from vime_runtime.batch import Response
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.buckets import BucketExporter

from harness.run_config import make_run_config
from harness.runtime.rank_processes import Process
from vimectl.runs.descendants import SharedMemoryWatch

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
ROLLOUT = {"max_prompt_tokens": 16, "max_response_tokens": 12, "temperature": 0.7}


def start(config: RunConfig) -> None:
    """Build the engine of this process."""
    from vime_runtime.rollout import engine

    engine.started = engine.Engine(config)


def call(method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method of the engine of this process; return what a generator yields as a list."""
    from vime_runtime.rollout import engine

    result = attrgetter(method)(engine.started)(*args, **kwargs)
    return list(result) if isgenerator(result) else result


def count_hits() -> None:
    """Count the tokens that requests find in the prefix cache of this process's engine."""
    from vime_runtime.rollout import engine

    manager = engine.started._llm.llm_engine.engine_core.engine_core.scheduler.kv_cache_manager
    engine.hits, look_up = 0, manager.get_computed_blocks

    def counting(request: Any) -> Any:
        found = look_up(request)
        engine.hits += found[1]
        return found

    manager.get_computed_blocks = counting


def hits() -> int:
    """Return the number of these tokens since the last call."""
    from vime_runtime.rollout import engine

    found, engine.hits = engine.hits, 0
    return found


class EngineProcess:
    """An Engine in another process, because vLLM pins threads to cores and changes torch.

    Attributes call its methods, by dotted path also those of its parts.
    """

    def __init__(
        self, model: Path, directory: Path, tensor_parallel: int = 1, dtype: str = "float32", **rollout: Any
    ) -> None:
        self._shared_memory = SharedMemoryWatch()
        cores = {"VLLM_CPU_OMP_THREADS_BIND": "|".join(map(str, range(tensor_parallel)))}
        self.process = Process(
            directory, os.environ | ENVIRONMENT | cores | {"VLLM_RPC_BASE_PATH": str(directory)}
        )
        recipe = {
            "model": {"path": str(model), "dtype": dtype},
            "rollout": {"tensor_parallel": tensor_parallel} | ROLLOUT | rollout,
        }
        self.process.run(start, make_run_config({"recipe": recipe}))
        self._shared_memory.update(all_files=True)

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **kwargs: self.process.run(call, method, args, kwargs)

    def sample(
        self, prompts: list[list[int]], samples: int, seed: int, temperature: float | None = None
    ) -> list[list[Response]]:
        """Return the responses in the order of the prompts, whose seeds follow from ``seed``."""
        # vLLM's seed for sample i of a prompt is that of the prompt + i.
        seeds = [1_000_000 * seed + 1000 * index for index in range(len(prompts))]
        found = dict(self.generate(prompts, samples, seeds, temperature))
        return [found[index] for index in range(len(prompts))]

    def send(self, exporter: BucketExporter) -> None:
        """Send every bucket of an export."""
        while (bucket := exporter.next()) is not None:
            self.update(bucket)

    def load_checkpoint(self, checkpoint: Path, bucket_bytes: int = 1024**2) -> None:
        """Update all weights to those of a checkpoint."""
        tensors = load_file(checkpoint / "model.safetensors")
        self.begin_update()
        self.send(BucketExporter(lambda: iter(tensors.items()), bucket_bytes))
        self.end_update()

    def stop(self) -> None:
        """End the engine and its workers."""
        self.process.run(call, "close", (), {})
        self.process.close()
        # A worker that is interrupted leaves its files, which a concurrent run must not see.
        self._shared_memory.remove_unused()
