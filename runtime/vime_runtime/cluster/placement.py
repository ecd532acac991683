"""The nodes of a run: reserved in Ray's books, ordered, and the actors on them.

Each node is one bundle of a placement group with all devices that the run has there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import available_resources_per_node
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from vime_runtime.cluster.node import Node, NodeActor
from vime_runtime.cluster.resources import INTERFACE, RESOURCES, VISIBLE, quantity
from vime_runtime.memory.process_tree import resident_bytes
from vime_runtime.process_environment import EnvSpec, required
from vime_runtime.spec.device_layout import DeviceAssignment
from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.spec.process_roles import Role
from vime_runtime.spec.run_config import RunConfig

# How long devices that others use at the moment are waited for.
FREE_SECONDS = 60
# How long a node may take to start an actor on a busy machine.
NODE_SECONDS = 120


@dataclass
class Placement:
    """Where the run's actors live. ``nodes`` are in the run's order, ``bundles`` those of the group."""

    config: RunConfig
    group: PlacementGroup
    nodes: list[Node]
    bundles: list[int]
    actors: list[ActorHandle] = field(default_factory=list)

    def start(self, kind: type, role: Role, seat: DeviceAssignment, *args: Any) -> ActorHandle:
        """Start ``kind(config, environment, *args)`` as an actor of a role, on its devices."""
        options = {
            "num_cpus": 0,  # its node's devices are reserved already
            "runtime_env": {"env_vars": self.environment(role, seat)},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, self.bundles[seat.node]),
        }
        actor = ray.remote(kind).options(**options).remote(self.config, self.wanted(role, seat), *args)
        self.actors.append(actor)
        return actor

    def environment(self, role: Role, seat: DeviceAssignment) -> dict[str, str]:
        """The role's environment as it was decided, with what only the node could tell. ``[env]`` wins."""
        node, cluster = self.nodes[seat.node], self.config.recipe.cluster
        own = {}
        if node.devices:
            own[VISIBLE[cluster.device]] = ",".join(node.devices[device] for device in seat.devices)
        if role == "train" and cluster.nodes > 1 and node.interface is not None:
            own |= dict.fromkeys(INTERFACE[cluster.device], node.interface)
        return {**self.config.environment[role], **own, **self.config.recipe.env}

    def wanted(self, role: Role, seat: DeviceAssignment) -> EnvSpec:
        """What such an actor is to find in its environment."""
        wanted = required(self.config, role)
        visible = VISIBLE.get(self.config.recipe.cluster.device)
        values = self.environment(role, seat)
        if visible in values:
            why = "the ranks and engines of a node each have devices of their own"
            wanted[visible] = re.escape(values[visible]), why
        return EnvSpec(values, wanted)

    def resident_bytes(self) -> int:
        """Memory of all processes of the run; in a cluster of its own Ray's are among them."""
        if self.config.address is None:
            return resident_bytes()
        return resident_bytes() + sum(ray.get([actor.resident_bytes.remote() for actor in self.actors]))


@contextmanager
def reserve(config: RunConfig, tell: Callable[[str], None]) -> Iterator[Placement]:
    """Reserve the run's devices on as many nodes as it has; give them back at the end.

    Raises:
        MissingRequirement: the cluster has too few nodes with so many devices, they did not become free, or a
            node lacks the runtime or the run's files.
    """
    cluster = config.recipe.cluster
    _require(config)
    group = placement_group(
        [{RESOURCES[cluster.device]: cluster.devices_per_node}] * cluster.nodes,
        strategy="STRICT_SPREAD" if cluster.nodes > 1 else "PACK",
    )
    actors: list[ActorHandle] = []
    try:
        _wait(group, config, tell)
        actors += [_node_actor(config, group, bundle) for bundle in range(cluster.nodes)]
        placement = _survey(config, group, actors)
        try:
            yield placement
        finally:
            actors += placement.actors
    finally:
        # A cluster of the run's own ends as a whole, even when it does not answer any more.
        if config.address is not None:
            _give_back(group, actors)


def _give_back(group: PlacementGroup, actors: list[ActorHandle]) -> None:
    """Leave nothing of the run in somebody else's cluster, now rather than when Ray finds the driver gone."""
    with suppress(Exception):  # a cluster that is gone must not hide why the run ended
        for actor in actors:
            ray.kill(actor)
        remove_placement_group(group)


def _node_actor(config: RunConfig, group: PlacementGroup, bundle: int) -> ActorHandle:
    cluster = config.recipe.cluster
    options = {
        **{"num_cpus": 0, **quantity(cluster.device, cluster.devices_per_node)},
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, bundle),
    }
    arena = config.recipe.memory.offload_dir
    needed = [config.recipe.model.path, config.run_dir, *([arena] if arena else [])]
    return ray.remote(NodeActor).options(**options).remote(config.scratch_dir, needed)


def _survey(config: RunConfig, group: PlacementGroup, actors: list[ActorHandle]) -> Placement:
    """Ask every node what it is; this process's own node comes first, so that rank 0 saves on it."""
    resource = RESOURCES[config.recipe.cluster.device]
    try:
        found = ray.get([actor.describe.remote(resource) for actor in actors], timeout=NODE_SECONDS)
    except ray.exceptions.RayError as e:
        last = [line for line in str(e).splitlines() if line.strip()][-1].strip()
        raise MissingRequirement(
            f"a node of the cluster cannot run the runtime: {last}",
            "install the same environment on every node and start Ray from it",
        ) from e
    for node in found:
        if node.missing:
            raise MissingRequirement(
                f"node {node.address} does not have {', '.join(node.missing)}",
                "put the model and the run directory (--run-dir) on a file system that all nodes share",
            )
    here = ray.get_runtime_context().get_node_id()
    order = sorted(range(len(found)), key=lambda i: (found[i].id != here, found[i].address, found[i].id))
    return Placement(config, group, [found[i] for i in order], order)


def _wait(group: PlacementGroup, config: RunConfig, tell: Callable[[str], None]) -> None:
    """Wait until the devices are the run's."""
    deadline = time.monotonic() + FREE_SECONDS
    told = ""
    while not group.wait(1):
        found = f"waiting until it has {_needs(config, ' free')}; found: {_found(config)}"
        if time.monotonic() > deadline:
            raise MissingRequirement(
                f"the run needs {_needs(config, ' free')}, and waited {FREE_SECONDS} s for them; "
                f"found: {_found(config)}",
                "wait for what runs there, or take fewer: cluster.nodes, cluster.devices_per_node",
            )
        if found != told:
            tell(found)
            told = found


def _require(config: RunConfig) -> None:
    """Refuse what the cluster could not give if it were idle."""
    cluster = config.recipe.cluster
    resource = RESOURCES[cluster.device]
    large = [n for n in _living() if n["Resources"].get(resource, 0) >= cluster.devices_per_node]
    if len(large) < cluster.nodes:
        raise MissingRequirement(
            f"the run needs {_needs(config)}; found: {_found(config)}",
            "add nodes with `ray start --address`, or change cluster.nodes and cluster.devices_per_node",
        )


def _needs(config: RunConfig, free: str = "") -> str:
    cluster = config.recipe.cluster
    each = " each" if cluster.nodes > 1 else ""
    nodes = _plural(cluster.nodes, "node")
    return f"{nodes} with {_plural(cluster.devices_per_node, RESOURCES[cluster.device], free)}{each}"


def _found(config: RunConfig) -> str:
    """Every node with the devices it has and those of them that nobody uses."""
    resource = RESOURCES[config.recipe.cluster.device]
    free: dict[str, dict[str, float]] = {}
    with suppress(Exception):  # not a public call; the message is good enough without
        free = available_resources_per_node()
    return ", ".join(
        f"node {node['NodeManagerAddress']} {_plural(node['Resources'].get(resource, 0), resource)} "
        f"({free.get(node['NodeID'], {}).get(resource, 0):g} free)"
        for node in sorted(_living(), key=lambda n: (n["NodeManagerAddress"], n["NodeID"]))
    )


def _living() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _plural(count: float, noun: str, adjective: str = "") -> str:
    return f"{count:g}{adjective} {noun}{'' if count == 1 else 's'}"
