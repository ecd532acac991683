"""The memory through which weights reach each engine worker: its own device, or CPU memory of its machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vime_runtime.spec.errors import MissingRequirement


@dataclass(frozen=True)
class WeightLocation:
    """Where a process has its weights, by the ids of ``device_identity``; no device for CPU memory."""

    machine: str
    device: str | None


@dataclass(frozen=True)
class BufferPlan:
    """The copies of a bucket that one trainer rank makes: on its device, in CPU memory of its machine."""

    device: bool
    cpu: bool


def plan_buffers(ranks: Sequence[WeightLocation], readers: Sequence[WeightLocation]) -> list[BufferPlan]:
    """Return the plan of each rank.

    A rank makes a copy on its device if an engine worker has the same device. For workers on other devices
    the first rank on each of their machines makes one in CPU memory.

    Raises:
        MissingRequirement: a worker has neither its device nor its machine in common with any rank.
    """
    devices = {rank.device for rank in ranks}
    machines = {reader.machine for reader in readers if reader.device not in devices}
    if missing := machines - {rank.machine for rank in ranks}:
        raise MissingRequirement(
            f"an engine worker on {', '.join(sorted(missing))} has neither device nor machine in common with "
            "a rank of the trainer: weights cannot reach it",
            "start trainer and engines in one container for each machine, or give both the same devices",
        )
    read = {reader.device for reader in readers}
    plans = []
    for rank in ranks:
        plans.append(BufferPlan(device=rank.device in read, cpu=rank.machine in machines))
        machines.discard(rank.machine)
    return plans
