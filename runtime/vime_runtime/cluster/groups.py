"""The two sides of a run as the loop sees them: all trainer ranks as one, all engines as one."""

from __future__ import annotations

from typing import Any

import psutil
import ray
from ray.exceptions import RayTaskError

from vime_runtime.batch import RolloutBatch
from vime_runtime.checkpoint.store import StatePart
from vime_runtime.cluster.actors import EngineActor, TrainerActor
from vime_runtime.cluster.placement import Placement
from vime_runtime.memory.process_tree import pid_space, wait_or_kill
from vime_runtime.memory.region import MemoryUsage
from vime_runtime.rollout.response import Response
from vime_runtime.spec.device_layout import engine_devices, trainer_devices
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.message import BucketMessage
from vime_runtime.weight_sync.transport import Place, copies

# Steps count seeds up one by one: engines must not meet a seed that another one has in a later step.
SEED_STRIDE = 1_000_003

# Workers notice that their engine is gone and end by themselves; after this they are killed.
KILL_SECONDS = 1.0


class TrainerGroup:
    """Every trainer rank, one actor each, on the devices in order."""

    def __init__(self, config: RunConfig, placement: Placement) -> None:
        seats = trainer_devices(config.recipe)
        self._ranks = [
            placement.start(TrainerActor, "train", seat, rank, len(seats)) for rank, seat in enumerate(seats)
        ]
        self.paused = False
        self._coming: list[Any] = []

    def processes(self) -> list[dict[str, Any]]:
        """The journal's entries of all ranks."""
        return self._all("process")

    def enter(self, phase: str, step: int) -> None:
        """Let every rank mark the phase in its log; returns at once."""
        for rank in self._ranks:
            rank.enter.remote(phase, step)

    def load(self) -> None:
        """Let every rank import what it needs; returns at once."""
        for rank in self._ranks:
            rank.load.remote()  # not waited for: if it fails, so will the start

    def start(self) -> None:
        """Build the trainer on every rank."""
        master = ray.get(self._ranks[0].free_address.remote())
        self._all("start", master)

    def resume(self) -> None:
        """Bring model and optimizer back to their addresses."""
        self._all("resume")
        self.paused = False

    def pause(self) -> None:
        """Give the memory of model and optimizer back."""
        self._all("pause")
        self.paused = True

    def step(self, batch: RolloutBatch) -> dict[str, float]:
        """One optimizer step; the metrics are already reduced over the ranks."""
        return self._all("step", ray.put(batch))[0]

    def serve(self, readers: list[Place]) -> None:
        """Export weights to where the engines' workers read them.

        Raises MissingRequirement: that is nowhere.
        """
        places = self._all("place")
        if any(place.chip is not None for place in places):
            each = zip(self._ranks, copies(places, readers), strict=True)
            ray.get([rank.serve.remote(made) for rank, made in each])

    def next_bucket(self) -> BucketMessage | None:
        """The next bucket of weights, or None after the last, with the handles of every rank's copy.

        The ranks fill the one after it meanwhile. It stays as it is until this is called again.
        """
        first, *others = ray.get(self._coming or self._start("next_bucket"))
        self._coming = [] if first is None else self._start("next_bucket")
        return first and first.joined(others)

    def write_state(self, folder: str) -> list[StatePart]:
        """Write the training state; returns what every rank wrote. Raises OSError, all ranks being done."""
        parts = self._all("write_state", folder)
        for part in parts:
            if isinstance(part, OSError):
                raise part
        return parts

    def read_state(self, folder: str, step: int, random: list[dict[str, Any]]) -> None:
        """Go back to the end of ``step``; ``random`` is in order of the ranks."""
        self._all("read_state", folder, step, random)

    def save_pretrained(self, directory: str) -> None:
        """Write the trained weights as a Hugging Face directory. Raises OSError."""
        try:
            self._all("save_pretrained", directory)
        except RayTaskError as e:
            if isinstance(e.cause, OSError):
                raise e.cause from e
            raise

    def memory_usage(self) -> MemoryUsage:
        """The training regions of all ranks together."""
        return MemoryUsage.total(self._all("memory_usage"))

    def _all(self, method: str, *args: Any) -> list[Any]:
        return ray.get(self._start(method, *args))

    def _start(self, method: str, *args: Any) -> list[Any]:
        return [getattr(rank, method).remote(*args) for rank in self._ranks]


class EngineGroup:
    """Every engine, one actor each; its own tensor-parallel workers are an engine's business."""

    def __init__(self, config: RunConfig, placement: Placement) -> None:
        self._engines = [
            placement.start(EngineActor, "rollout", seat, index)
            for index, seat in enumerate(engine_devices(config.recipe))
        ]
        self._processes: list[psutil.Process] = []

    def processes(self) -> list[dict[str, Any]]:
        """The journal's entries of all engines."""
        return self._all("process")

    def workers(self) -> list[dict[str, Any]]:
        """The journal's entries of all engines' worker processes."""
        return [entry for entries in self._all("workers") for entry in entries]

    def enter(self, phase: str, step: int) -> None:
        """Let every engine mark the phase in its log; returns at once."""
        for engine in self._engines:
            engine.enter.remote(phase, step)

    def load(self) -> None:
        """Let every engine import what it needs; returns at once."""
        for engine in self._engines:
            engine.load.remote()  # not waited for: if it fails, so will the start

    def start(self) -> None:
        """Build every engine."""
        for space, pids in self._all("start"):
            if space == pid_space():
                self._processes += map(psutil.Process, pids)

    def generate(
        self, prompts: list[list[int]], samples: int, seed: int, greedy: bool = False
    ) -> list[list[Response]]:
        """Sample ``samples`` responses to each prompt; the prompts are dealt to the engines in turn.

        With fewer prompts than engines the last engines have nothing to do.
        """
        count = min(len(self._engines), len(prompts))
        shares = ray.get(
            [
                engine.generate.remote(prompts[i::count], samples, seed + i * SEED_STRIDE, greedy)
                for i, engine in enumerate(self._engines[:count])
            ]
        )
        answers: list[list[Response]] = [[]] * len(prompts)
        for i, share in enumerate(shares):
            answers[i::count] = share
        return answers

    def sleep(self) -> None:
        """Give the memory of weights and KV caches back."""
        self._all("sleep")

    def wake(self, tag: str) -> None:
        """Take the memory of ``weights`` or ``kv_cache`` again."""
        self._all("wake", tag)

    def places(self) -> list[Place]:
        """Where the workers of all engines have their weights."""
        return [place for places in self._all("places") for place in places]

    def begin_update(self) -> None:
        """Prepare for new weights."""
        self._all("begin_update")

    def update(self, bucket: BucketMessage) -> None:
        """Load one bucket."""
        self._all("update", bucket)

    def end_update(self) -> None:
        """Finish the update; raises when a parameter was not covered."""
        self._all("end_update")

    def memory_usage(self) -> MemoryUsage:
        """Weights and KV caches of all engines together."""
        return MemoryUsage.total(self._all("memory_usage"))

    def close(self) -> None:
        """Stop the engines and their workers."""
        self._all("close")

    def kill(self) -> None:
        """End the engines whatever they are doing.

        The memory of those on this machine is free when this returns; on another one Ray ends them.
        """
        for engine in self._engines:
            ray.kill(engine)
        wait_or_kill(self._processes, KILL_SECONDS)

    def _all(self, method: str, *args: Any) -> list[Any]:
        return ray.get([getattr(engine, method).remote(*args) for engine in self._engines])
