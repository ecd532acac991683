"""The Ray actors: a trainer rank and an engine, each a thin shell around the plain class that does the work.

The heavy imports happen inside the actors: the environment that Ray gives a worker
process must be in place before torch, vLLM or Megatron read it.
"""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from vime_runtime.cluster import processes
from vime_runtime.gc_pause import gc_paused
from vime_runtime.logging import process_log
from vime_runtime.memory.process_tree import resident_bytes
from vime_runtime.process_environment import EnvSpec, worker_refusal
from vime_runtime.spec.run_config import RunConfig

if TYPE_CHECKING:
    from vime_runtime.batch import RolloutBatch
    from vime_runtime.checkpoint.store import StatePart
    from vime_runtime.memory.region import MemoryUsage
    from vime_runtime.rollout.engine import Engine
    from vime_runtime.rollout.response import Response
    from vime_runtime.weight_sync.message import BucketMessage
    from vime_runtime.weight_sync.transport import Copies, Place


class TrainerActor:
    """One trainer rank."""

    def __init__(self, config: RunConfig, environment: EnvSpec, rank: int, world_size: int) -> None:
        self._config = config
        self._environment = environment
        self._rank = rank
        self._world_size = world_size
        process_log.take_over(self._config.run_dir, f"trainer {rank}")

    def enter(self, phase: str, step: int) -> None:
        """Mark the phase in this rank's log."""
        process_log.mark(phase, step)

    def process(self) -> dict[str, Any]:
        """This rank's entry in the journal."""
        return processes.entry("trainer rank", self._rank)

    def free_address(self) -> str:
        """Return "host:port", free on this actor's node, for the ranks to meet at.

        Nothing listens outside the machine where it need not.
        """
        several = self._config.recipe.cluster.nodes > 1
        host = ray.util.get_node_ip_address() if several else "127.0.0.1"
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.bind((host, 0))
            return f"{f'[{host}]' if ':' in host else host}:{probe.getsockname()[1]}"

    def load(self) -> None:
        """Import what ``start`` needs, which takes seconds: the driver reads the data meanwhile.

        Raises:
            WrongEnvironment: this process does not have the environment that it needs.
        """
        self._environment.require(f"trainer rank {self._rank}")
        with gc_paused():
            from vime_runtime import device

            device.get(self._config.recipe.cluster.device).before_megatron()
            import vime_runtime.trainer.trainer  # noqa: F401

    def start(self, master: str) -> None:
        """Build the trainer of this rank; returns when every rank has joined. Raises as ``load``."""
        self.load()
        from vime_runtime.trainer.trainer import Trainer

        self._trainer = Trainer(self._config, self._rank, self._world_size, master)
        self._exporter = self._trainer.exporter()

    def place(self) -> Place:
        """Which chip and machine this rank has its weights on."""
        return self._trainer.place()

    def serve(self, copies: Copies) -> None:
        """Export weights to where they are read."""
        self._exporter.serve(copies)

    def pause(self) -> None:
        """Give the training region's memory back."""
        self._trainer.pause()

    def resume(self) -> None:
        """Take the training region's memory again, contents and addresses unchanged."""
        self._trainer.resume()

    def step(self, batch: RolloutBatch) -> dict[str, float]:
        """One optimizer step on this rank's share of the batch."""
        return self._trainer.train_step(batch)

    def next_bucket(self) -> BucketMessage | None:
        """The next bucket of the export, or None at its end. A collective over the ranks."""
        return self._exporter.next()

    def write_state(self, folder: str) -> StatePart | OSError:
        """Write this rank's part of the training state; an error of the disk is returned, so that the
        others are waited for and nobody writes any more when it is raised."""
        try:
            return self._trainer.write_state(Path(folder))
        except OSError as e:
            return e

    def read_state(self, folder: str, step: int, random: list[dict[str, Any]]) -> None:
        """Go back to the end of ``step``; ``random`` is in order of the ranks."""
        self._trainer.read_state(Path(folder), step, random[self._rank])

    def save_pretrained(self, directory: str) -> None:
        """Write the weights as a Hugging Face directory. A collective over the ranks."""
        self._trainer.save_pretrained(directory)

    def memory_usage(self) -> MemoryUsage:
        """What the kernel says of the training region."""
        return self._trainer.memory_usage()

    def resident_bytes(self) -> int:
        """Memory of this process."""
        return resident_bytes()


class EngineActor:
    """One vLLM engine."""

    def __init__(self, config: RunConfig, environment: EnvSpec, index: int) -> None:
        self._config = config
        self._environment = environment
        self._index = index
        self._engine: Engine | None = None
        process_log.take_over(self._config.run_dir, f"engine {index}")

    def process(self) -> dict[str, Any]:
        """This engine's entry in the journal."""
        return processes.entry("engine", self._index)

    def enter(self, phase: str, step: int) -> None:
        """Mark the phase in this engine's log and in those of its workers."""
        process_log.mark(phase, step)
        if self._engine:
            self._engine.enter(phase, step)

    def load(self) -> None:
        """Import what ``start`` needs, which takes seconds: the trainer is built meanwhile."""
        with gc_paused():
            import vime_runtime.rollout.engine  # noqa: F401

    def start(self) -> tuple[str, list[int]]:
        """Build the engine; returns when it can generate, with where its processes are, and their ids.

        Raises:
            WrongEnvironment: this process, or a worker of the engine, has not the environment that it needs.
        """
        engine = f"engine {self._index}"
        self._environment.require(engine)
        self._environment.tell_workers(Path(tempfile.gettempdir()), engine)
        from vime_runtime.memory.process_tree import own_pids, pid_space
        from vime_runtime.rollout.engine import Engine

        try:
            self._engine = Engine(self._config)
        except Exception as e:
            raise (worker_refusal() or e) from e
        return pid_space(), own_pids()

    def workers(self) -> list[dict[str, Any]]:
        """The journal's entries of the engine's worker processes, counted over all engines; none at TP=1."""
        first = self._index * self._config.recipe.rollout.tensor_parallel
        pids = self._engine.worker_pids()
        return [processes.entry("engine worker", first + rank, pid) for rank, pid in enumerate(pids)]

    def generate(
        self, prompts: list[list[int]], samples: int, seed: int, greedy: bool = False
    ) -> list[list[Response]]:
        """Sample responses to every prompt, or take the likeliest."""
        return self._engine.generate(prompts, samples=samples, seed=seed, greedy=greedy)

    def sleep(self) -> None:
        """Give back the memory of weights and KV cache."""
        self._engine.sleep()

    def wake(self, tag: str) -> None:
        """Take back the memory of ``weights`` or ``kv_cache``."""
        self._engine.wake(tag)

    def places(self) -> list[Place]:
        """Where each worker has its weights."""
        return self._engine.places()

    def begin_update(self) -> None:
        """Prepare for new weights."""
        self._engine.begin_update()

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket of weights."""
        self._engine.update(bucket)

    def end_update(self) -> None:
        """Finish the update; raises when a parameter was not covered."""
        self._engine.end_update()

    def memory_usage(self) -> MemoryUsage:
        """What the kernel says of the engine's weights and KV cache, summed over its workers."""
        return self._engine.memory_usage()

    def resident_bytes(self) -> int:
        """Memory of this process and the engine's workers."""
        return resident_bytes()

    def close(self) -> None:
        """Stop the engine's worker processes."""
        self._engine.close()
