"""What the engine asks of its vLLM workers beyond vLLM's own calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from vime_runtime.logging import process_log
from vime_runtime.memory.region import Residency
from vime_runtime.rollout import device_sleep, npu_fixes
from vime_runtime.weight_sync import generations
from vime_runtime.weight_sync.generations.route import Route
from vime_runtime.weight_sync.message import BucketMessage
from vime_runtime.weight_sync.receiver import Receiver
from vime_runtime.weight_sync.transport import Place


class WorkerExtension:
    """Mixed into vLLM's worker class by ``worker_extension_cls``, as its last base."""

    sleep_mode_backend: Any
    get_model: Callable[[], torch.nn.Module]
    _bucket_route: Route

    def __new__(cls, *args: Any, **kwargs: Any) -> WorkerExtension:
        """Apply what every worker on an NPU needs, also where vLLM did not load our plugin."""
        npu_fixes.apply(cls)
        return super().__new__(cls)

    def mark_phase(self, phase: str, step: int) -> None:
        """Mark the phase in this worker's log."""
        process_log.mark(phase, step)

    def residency(self, asleep: list[str]) -> Residency:
        """This worker's weights and KV cache; the tags in ``asleep`` have no memory at the moment."""
        backend = getattr(self, "sleep_mode_backend", None)
        return backend.residency() if hasattr(backend, "residency") else device_sleep.residency(asleep)

    def process_id(self) -> int:
        """The process this worker lives in."""
        return os.getpid()

    def weights_place(self) -> Place:
        """Which chip and machine this worker has its weights on."""
        return Receiver(self.get_model()).place()

    def begin_buckets(self) -> None:
        """Begin to take new weights."""
        self._bucket_route = generations.route(self)
        self._bucket_route.begin()

    def take_bucket(self, bucket: BucketMessage) -> None:
        """Load one bucket of weights."""
        self._bucket_route.update(bucket)

    def end_buckets(self) -> None:
        """End the update; raises when tensors are missing."""
        self._bucket_route.finish()
        npu_fixes.lay_experts_back(self.get_model())
