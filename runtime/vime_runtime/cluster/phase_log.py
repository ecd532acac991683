"""Tell the processes of both sides which phase the run is in, for their logs."""

from __future__ import annotations

from typing import Protocol

import ray

from vime_runtime.logging.event_log import Callback


class Group(Protocol):
    """One side of the run."""

    def enter(self, phase: str, step: int) -> None: ...


class PhaseForwarder(Callback):
    """Passes every phase on to both sides, as long as there is a cluster."""

    def __init__(self, *groups: Group) -> None:
        self._groups = groups

    def enter(self, phase: str, step: int, detail: str) -> None:
        """Pass a phase on, waiting for nobody: calls to an actor keep their order."""
        if ray.is_initialized():
            for group in self._groups:
                group.enter(phase, step)
