"""Which copies of the weights each trainer rank makes, so that every engine worker finds one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vime_runtime.spec.errors import MissingRequirement


@dataclass(frozen=True)
class Place:
    """Where a process has its weights: ids of ``sync/identity.py``; no chip where it is the host's memory."""

    machine: str
    chip: str | None


@dataclass(frozen=True)
class Copies:
    """What one rank makes: one on its chip, one in the memory of its machine."""

    chip: bool
    host: bool


def copies(ranks: Sequence[Place], readers: Sequence[Place]) -> list[Copies]:
    """The copies of each rank: on a chip that an engine worker has too; for workers with other chips one in
    the memory of each of their machines, by the first rank there.

    Raises:
        MissingRequirement: a worker has neither its chip nor its machine in common with any rank.
    """
    chips = {rank.chip for rank in ranks}
    strangers = [reader for reader in readers if reader.chip not in chips]
    machines = {reader.machine for reader in strangers}
    if missing := machines - {rank.machine for rank in ranks}:
        raise MissingRequirement(
            f"an engine worker on {', '.join(sorted(missing))} has neither device nor machine in common with "
            "a rank of the trainer: weights cannot reach it",
            "start trainer and engines in one container for each machine, or give both the same devices",
        )
    read = {reader.chip for reader in readers}
    served: set[str] = set()
    made = []
    for rank in ranks:
        host = rank.machine in machines and rank.machine not in served
        served |= {rank.machine} if host else set()
        made.append(Copies(chip=rank.chip in read, host=host))
    return made
