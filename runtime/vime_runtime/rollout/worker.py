"""What the engine asks of its vLLM workers beyond vLLM's own calls."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vime_runtime.memory.region import Residency
from vime_runtime.watch import process_log

if TYPE_CHECKING:
    from vime_runtime.rollout.host_sleep import HostSleep


class WorkerExtension:
    """Mixed into vLLM's worker class by ``worker_extension_cls``."""

    sleep_mode_backend: HostSleep

    def mark_phase(self, phase: str, step: int) -> None:
        """Mark the phase in this worker's log."""
        process_log.mark(phase, step)

    def residency(self) -> Residency:
        """This worker's weights and KV cache."""
        return self.sleep_mode_backend.residency()

    def process_id(self) -> int:
        """The process this worker lives in."""
        return os.getpid()
