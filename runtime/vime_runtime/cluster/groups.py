"""Trainer and engine as the loop uses them: all trainer ranks as one object, all engines as one object."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayTaskError

from vime_runtime.batch import Response, RolloutBatch
from vime_runtime.checkpoint.store import StatePart
from vime_runtime.cluster.actors import EngineActor, TrainerActor
from vime_runtime.cluster.placement import ActorHandle, Placement
from vime_runtime.logging.event_log import Callback
from vime_runtime.memory.process_tree import wait_or_kill
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.spec.device_layout import engine_devices, trainer_devices
from vime_runtime.spec.process_roles import ProcessEntry
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.device_identity import machine_id
from vime_runtime.weight_sync.transport import BucketMessage, WeightLocation, plan_buffers

# Seconds in which workers exit by themselves when their engine has exited; after that they are killed.
KILL_SECONDS = 1.0


class _ActorGroup:
    """Actors of one kind."""

    def __init__(self, actors: list[ActorHandle]) -> None:
        self._actors = actors

    def processes(self) -> list[ProcessEntry]:
        """Return the entries of all actors."""
        return self._ask("process")

    def mark_phase(self, phase: str, step: int) -> None:
        """Mark a phase in the logs of all processes; returns at once."""
        self._send("mark_phase", phase, step)

    def memory_usage(self) -> MemoryUsage:
        """Return the usage of all training regions, or of the weights and KV caches of all engines."""
        return MemoryUsage.total(self._call("memory_usage"))

    def load(self) -> None:
        """Start the imports of all actors; returns at once. ``start`` raises their errors."""
        self._send("load")

    def _send(self, method: str, *args: Any) -> list[Any]:
        """Start a method of every actor."""
        return [getattr(actor, method).remote(*args) for actor in self._actors]

    def _ask(self, method: str, *args: Any) -> list[Any]:
        """Return the results of a method of every actor."""
        results: list[Any] = ray.get(self._send(method, *args))
        return results

    def _call(self, method: str, *args: Any) -> list[Any]:
        """Return the results of a method of every ``Trainer`` or ``Engine``."""
        return self._ask("call", method, *args)


class TrainerGroup(_ActorGroup):
    """All trainer ranks, in the order of the devices."""

    def __init__(self, config: RunConfig, placement: Placement) -> None:
        devices = trainer_devices(config.recipe)
        super().__init__(
            [
                placement.start(TrainerActor, "train", assignment, rank, len(devices))
                for rank, assignment in enumerate(devices)
            ]
        )
        self.offloaded = False
        self._next_buckets: list[Any] = []

    def start(self) -> None:
        """Build the trainer on every rank. Raises WrongEnvironment."""
        url = ray.get(self._actors[0].open_store.remote())
        self._ask("start", url, secrets.token_bytes(32))

    def resume(self) -> None:
        """Make model and optimizer resident again, at the same addresses."""
        self._call("resume")
        self.offloaded = False

    def pause(self) -> None:
        """Offload model and optimizer."""
        self._call("pause")
        self.offloaded = True

    def step(self, batch: RolloutBatch) -> dict[str, float]:
        """Update the weights; return metrics over the whole batch."""
        metrics: dict[str, float] = self._call("train_step", ray.put(batch))[0]
        return metrics

    def set_readers(self, readers: list[WeightLocation]) -> None:
        """Choose the memory for exported weights by where the engines' workers can read.

        Raises:
            MissingRequirement: a worker cannot read from any rank.
        """
        locations = self._call("weight_location")
        if any(location.device is not None for location in locations):
            each = zip(self._actors, plan_buffers(locations, readers), strict=True)
            ray.get([actor.set_buffer_plan.remote(plan) for actor, plan in each])

    def next_bucket(self) -> BucketMessage | None:
        """Return the next bucket of weights with the handles of every rank's copy, or None after the last.

        It is valid until the next call. In the meantime the ranks fill the bucket after it.
        """
        first, *others = ray.get(self._next_buckets or self._send("next_bucket"))
        self._next_buckets = [] if first is None else self._send("next_bucket")
        bucket: BucketMessage | None = first and first.joined(others)
        return bucket

    def write_state(self, folder: Path) -> list[StatePart]:
        """Write the training state; return what every rank wrote. Raises OSError.

        Every rank has stopped writing when an error is raised.
        """
        parts = self._send("call", "write_state", folder)
        ray.wait(parts, num_returns=len(parts))
        with _os_errors():
            written: list[StatePart] = ray.get(parts)
        return written

    def read_state(self, folder: Path, step: int, random: list[dict[str, Any]]) -> None:
        """Restore the state after ``step``; ``random`` has the random generators in rank order."""
        each = zip(self._actors, random, strict=True)
        ray.get([actor.call.remote("read_state", folder, step, state) for actor, state in each])

    def save_pretrained(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory. Raises OSError."""
        with _os_errors():
            self._call("save_pretrained", directory)


class EngineGroup(_ActorGroup):
    """All engines. Each has its own tensor-parallel workers."""

    def __init__(self, config: RunConfig, placement: Placement) -> None:
        super().__init__(
            [
                placement.start(EngineActor, "rollout", assignment, index)
                for index, assignment in enumerate(engine_devices(config.recipe))
            ]
        )
        self._local_processes: list[psutil.Process] = []

    def workers(self) -> list[ProcessEntry]:
        """Return the entries of all engines' worker processes."""
        return [entry for entries in self._ask("workers") for entry in entries]

    def start(self) -> None:
        """Build every engine. Raises WrongEnvironment."""
        for machine, pids in self._ask("start"):
            if machine == machine_id():
                self._local_processes += map(psutil.Process, pids)

    def generate(
        self, prompts: list[list[int]], samples: int, seeds: list[int], temperature: float | None = None
    ) -> Iterator[tuple[int, list[Response]]]:
        """Sample ``samples`` responses to each prompt; see ``Engine.generate``.

        The prompts are distributed round-robin. With fewer prompts than engines the last engines get none.
        """
        count = min(len(self._actors), len(prompts))
        streams: dict[Any, int] = {
            engine.generate.remote(prompts[i::count], samples, seeds[i::count], temperature): i
            for i, engine in enumerate(self._actors[:count])
        }
        while streams:
            stream: Any = ray.wait(list(streams), num_returns=1)[0][0]
            try:
                index, responses = ray.get(next(stream))
            except StopIteration:
                del streams[stream]
            else:
                yield index * count + streams[stream], responses

    def sleep(self) -> None:
        """Release the memory of weights and KV caches."""
        self._call("sleep")

    def wake(self, tag: str) -> None:
        """Allocate the memory of ``weights`` or ``kv_cache`` again."""
        self._call("wake", tag)

    def weight_locations(self) -> list[WeightLocation]:
        """Return where the workers of all engines have their weights."""
        return [location for each in self._call("weight_locations") for location in each]

    def begin_update(self) -> None:
        """Start a weight update."""
        self._call("begin_update")

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket of weights."""
        self._call("update", bucket)

    def end_update(self) -> None:
        """Finish the update. Raises an error that names the tensors that are missing."""
        self._call("end_update")

    def close(self) -> None:
        """Stop the engines and their workers."""
        self._call("close")

    def kill(self) -> None:
        """Kill the engines, even in the middle of a call.

        The memory of those on this machine is free when this returns; Ray kills those on other machines.
        """
        for engine in self._actors:
            ray.kill(engine)
        wait_or_kill(self._local_processes, KILL_SECONDS)


class PhaseForwarder(Callback):
    """Mark the phases in the logs of trainer and engine, as long as there is a cluster."""

    def __init__(self, *groups: TrainerGroup | EngineGroup) -> None:
        self._groups = groups

    def on_phase(self, phase: str, step: int) -> None:
        """Pass a phase on without waiting: calls to an actor are executed in order."""
        if ray.is_initialized():
            for group in self._groups:
                group.mark_phase(phase, step)


@contextmanager
def _os_errors() -> Iterator[None]:
    """Raise the OSError of an actor instead of Ray's error that wraps it."""
    try:
        yield
    except RayTaskError as e:
        if isinstance(e.cause, OSError):
            raise e.cause from e
        raise
