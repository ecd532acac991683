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


def trainer_communicators(recipe: Recipe) -> int:
    """Return the number of communicators of a trainer rank that have buffers of the default size.

    Groups of the same ranks share one, and that of all ranks has small buffers (``trainer.parallel``).
    On an NPU the buffers are ``HCCL_BUFFSIZE`` MB, 200 by default, for input and as much for output.
    """
    ranks = len(trainer_devices(recipe))
    tensor, expert = recipe.train.tensor_parallel, recipe.train.expert_parallel
    groups = [range(tensor), range(0, ranks, tensor)]
    if expert > 1:
        groups += [range(expert), range(0, ranks, expert), range(0, expert, tensor)]
    return len({tuple(group) for group in groups if len(group) > 1})


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
