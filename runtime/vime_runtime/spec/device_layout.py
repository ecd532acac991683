"""Which devices each trainer rank and each engine gets: in order, node by node."""

from __future__ import annotations

from dataclasses import dataclass

from vime_runtime.spec.recipe import Recipe

# Which NPUs of a machine a process may use, in ascending order. CANN's name.
VISIBLE_DEVICES = "ASCEND_RT_VISIBLE_DEVICES"


@dataclass(frozen=True)
class DeviceAssignment:
    """Devices of one rank or engine: ``node`` counts the nodes of the run, ``devices`` those of the node."""

    node: int
    devices: tuple[int, ...]


def trainer_devices(recipe: Recipe) -> list[DeviceAssignment]:
    """Return one device for each trainer rank, in rank order."""
    return _assign(recipe, 1)


def engine_devices(recipe: Recipe) -> list[DeviceAssignment]:
    """Return ``rollout.tensor_parallel`` adjacent devices for each engine, in engine order."""
    return _assign(recipe, recipe.rollout.tensor_parallel)


def placement(recipe: Recipe) -> list[dict[str, int]]:
    """Return one row per device: its node, trainer rank and replica, engine and rank in the engine."""
    rows = {}
    for rank, assigned in enumerate(trainer_devices(recipe)):
        rows[assigned.node, assigned.devices[0]] = {
            "node": assigned.node,
            "device": assigned.devices[0],
            "train_rank": rank,
            "train_replica": rank // recipe.train.tensor_parallel,
        }
    for engine, assigned in enumerate(engine_devices(recipe)):
        for rank, device in enumerate(assigned.devices):
            rows[assigned.node, device] |= {"engine": engine, "engine_rank": rank}
    return list(rows.values())


def _assign(recipe: Recipe, size: int) -> list[DeviceAssignment]:
    return [
        DeviceAssignment(node, tuple(range(first, first + size)))
        for node in range(recipe.cluster.nodes)
        for first in range(0, recipe.cluster.devices_per_node, size)
    ]
