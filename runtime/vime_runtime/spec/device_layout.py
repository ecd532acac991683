"""Which devices every trainer rank and every engine has: laid out node by node, in order.

Plain arithmetic on the recipe; ``vimectl`` shows the same in a dry run.
"""

from __future__ import annotations

from dataclasses import dataclass

from vime_runtime.config import Config


@dataclass(frozen=True)
class Seat:
    """A node of the run, counted from 0, and devices on it, counted from 0 on every node."""

    node: int
    devices: tuple[int, ...]


def trainer_seats(config: Config) -> list[Seat]:
    """One device a rank, in the order of the ranks."""
    return _seats(config, 1)


def engine_seats(config: Config) -> list[Seat]:
    """``rollout.tensor_parallel`` neighbouring devices an engine, in the order of the engines."""
    return _seats(config, config.recipe.rollout.tensor_parallel)


def _seats(config: Config, size: int) -> list[Seat]:
    cluster = config.recipe.cluster
    return [
        Seat(node, tuple(range(first, first + size)))
        for node in range(cluster.nodes)
        for first in range(0, cluster.devices_per_node, size)
    ]
