"""The Ray actors of a run: one for each trainer rank, one for each engine.

An actor imports torch, vLLM or Megatron only in ``load``: they read its environment, which is checked first.
``start`` creates the ``Trainer`` or ``Engine`` that does the work; the actor passes calls on to it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psutil
import ray

from vime_runtime.batch import Response
from vime_runtime.eager_only import hide_triton, without_inductor
from vime_runtime.gc_pause import gc_paused
from vime_runtime.logging import process_log
from vime_runtime.memory.process_tree import own_pids, resident_bytes
from vime_runtime.process_environment import EnvSpec, worker_error
from vime_runtime.spec import process_roles
from vime_runtime.spec.process_roles import ProcessEntry
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.weight_sync.device_identity import machine_id

if TYPE_CHECKING:
    from vime_runtime.weight_sync.buckets import BucketExporter
    from vime_runtime.weight_sync.transport import BucketMessage


def process_entry(role: str, rank: int = 0, pid: int | None = None) -> ProcessEntry:
    """Return the entry of a process of this node; of the calling process without ``pid``."""
    return {"role": role, "rank": rank, "pid": pid or os.getpid(), "node": os.uname().nodename}


class _RunActor:
    """Base class of both actors. ``_worker`` is the ``Trainer`` or ``Engine``."""

    role: str
    _worker: Any = None

    def __init__(self, config: RunConfig, env_spec: EnvSpec, rank: int, name: str) -> None:
        self._config = config
        self._env_spec = env_spec
        self._rank = rank
        process_log.redirect_output(config.paths, name)
        if config.recipe.cluster.device == "cpu":
            hide_triton()

    def process(self) -> ProcessEntry:
        """Return the entry of this process."""
        return process_entry(self.role, self._rank)

    def resident_bytes(self) -> int:
        """Return the memory of this process and its children."""
        return resident_bytes()

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the trainer or engine."""
        return getattr(self._worker, method)(*args)

    def mark_phase(self, phase: str, step: int) -> None:
        """Mark a phase in the log of this process."""
        process_log.mark_phase(phase, step)


class TrainerActor(_RunActor):
    """One trainer rank."""

    role = process_roles.TRAINER

    def __init__(self, config: RunConfig, env_spec: EnvSpec, rank: int, world_size: int) -> None:
        super().__init__(config, env_spec, rank, f"trainer {rank}")
        self._world_size = world_size
        self._listener: socket.socket | None = None

    def open_store(self) -> str:
        """Return the URL of the store in which the ranks meet, for ``rank_store.connect``; on rank 0.

        On one node it is a new file in the run's private folder. On several nodes it is a port on the address
        of this node that the others know.
        """
        if self._config.recipe.cluster.nodes == 1:
            return f"file://{self._config.scratch_dir}/ranks-{secrets.token_hex(4)}"
        host = ray.util.get_node_ip_address()
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._listener.bind((host, 0))
        return f"tcp://{f'[{host}]' if ':' in host else host}:{self._listener.getsockname()[1]}"

    def load(self) -> None:
        """Import what ``start`` needs. It takes seconds, in which the driver reads the data.

        Raises:
            WrongEnvironment: this process does not have the environment that it needs.
        """
        self._env_spec.require(f"trainer rank {self._rank}")
        with gc_paused(), without_inductor():
            from vime_runtime import device

            device.get(self._config.recipe.cluster.device).before_megatron()
            import vime_runtime.trainer.trainer  # noqa: F401

    def start(self, url: str, secret: bytes) -> None:
        """Build the trainer of this rank; returns when every rank has joined. Raises as ``load``.

        Args:
            url: of ``open_store``.
            secret: of the ranks of this run.
        """
        self.load()
        from vime_runtime.trainer import rank_store
        from vime_runtime.trainer.trainer import Trainer

        connected = rank_store.connect(url, secret, self._world_size, self._listener)
        self._worker = Trainer(self._config, self._rank, self._world_size, connected)
        self._exporter: BucketExporter = self._worker.exporter()

    def set_buffer_plan(self, plan: Any) -> None:
        """Export weights into the memory that the engine workers read (``weight_sync.transport``)."""
        self._exporter.set_plan(plan)

    def next_bucket(self) -> BucketMessage | None:
        """Return the next bucket of the export, or None at its end. A collective over the ranks."""
        return self._exporter.next()


class EngineActor(_RunActor):
    """One vLLM engine."""

    role = process_roles.ENGINE

    def __init__(self, config: RunConfig, env_spec: EnvSpec, rank: int) -> None:
        self._name = f"engine {rank}"
        super().__init__(config, env_spec, rank, self._name)

    def mark_phase(self, phase: str, step: int) -> None:
        """Mark a phase in the logs of this process and the engine's workers."""
        super().mark_phase(phase, step)
        if self._worker:
            self._worker.mark_phase(phase, step)

    def generate(self, *args: Any) -> Iterator[tuple[int, list[Response]]]:
        """Yield what ``Engine.generate`` yields, one object of Ray each."""
        yield from self._worker.generate(*args)

    def load(self) -> None:
        """Import what ``start`` needs. It takes seconds, in which the trainer is built."""
        recipe = self._config.recipe
        if recipe.cluster.device == "cpu" and recipe.rollout.tensor_parallel > 1:
            from vime_runtime.rollout import worker_server

            worker_server.start()
        with gc_paused(), without_inductor():
            import vime_runtime.rollout.engine  # noqa: F401

    def start(self) -> tuple[str, list[int]]:
        """Build the engine.

        Returns:
            the ``machine_id`` and the ids of its processes.

        Raises:
            WrongEnvironment: this process, or a worker, does not have the environment that it needs.
        """
        self._env_spec.require(self._name)
        self._env_spec.pass_to_workers(self._config.run_dir, self._name)
        from vime_runtime.rollout.engine import Engine

        try:
            self._worker = Engine(self._config)
        except Exception as e:
            raise (worker_error(self._name) or e) from e
        return machine_id(), own_pids()

    def workers(self) -> list[ProcessEntry]:
        """Return the entries of the engine's worker processes, numbered over all engines, and their server.

        An engine with one rank has neither.
        """
        first = self._rank * self._config.recipe.rollout.tensor_parallel
        pids: list[int] = self.call("worker_pids")
        servers = {psutil.Process(pid).ppid() for pid in pids} - {os.getpid()}
        return [
            *(process_entry(process_roles.ENGINE_WORKER, rank, pid) for rank, pid in enumerate(pids, first)),
            *(process_entry(process_roles.ENGINE_WORKER_SERVER, self._rank, pid) for pid in servers),
        ]
