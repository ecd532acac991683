"""The progress of a command that works in phases, as `cli.phases` displays it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseProgress:
    """The progress of one phase: ``done`` of ``total`` units, and the bytes downloaded so far."""

    phase: str
    done: int = 0
    total: int = 0
    unit: str = "packages"
    bytes: int = 0
    detail: str = ""


ReportPhase = Callable[[PhaseProgress], None]
