"""The nodes of a run: reserved in Ray, ordered, and the actors on them.

Each node is one bundle of a placement group with all devices that the run uses there.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from vime_runtime.memory.process_tree import resident_bytes
from vime_runtime.process_environment import EnvSpec
from vime_runtime.spec.device_layout import VISIBLE_DEVICES, DeviceAssignment
from vime_runtime.spec.errors import MissingRequirement
from vime_runtime.spec.process_roles import Role
from vime_runtime.spec.recipe import Device
from vime_runtime.spec.run_config import RequiredVariable, RunConfig

# Seconds to wait for devices that other jobs use.
FREE_SECONDS = 60
# Seconds in which a node must start an actor, also on a busy machine.
NODE_SECONDS = 120

# Ray's names of the devices.
RESOURCES: dict[Device, str] = {"cpu": "CPU", "npu": "NPU"}
# Select the network interface to trainer ranks on other nodes.
INTERFACE_VARIABLES: dict[Device, tuple[str, ...]] = {
    "cpu": ("GLOO_SOCKET_IFNAME",),
    "npu": ("GLOO_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME"),
}

# Waits until the other end of the pipe is closed, then removes the folder. It runs in the background in
# another session, because Ray kills the children of an actor that exits.
REMOVE_AT_EXIT = 'exec 3<&0; (cat <&3 >/dev/null; rm -rf "$0") &'

ActorHandle = Any  # ray.actor.ActorHandle; the methods of a handle are not typed


def device_request(device: Device, count: int) -> dict[str, Any]:
    """Return the keyword arguments for ``count`` devices of ``ray.init`` and of an actor's options."""
    return {"num_cpus": count} if device == "cpu" else {"resources": {RESOURCES[device]: count}}


@dataclass(frozen=True)
class Node:
    """One node of the run.

    Attributes:
        interface: name of the network interface with the node's address, if there is one.
        devices: physical ids of the run's devices there; none for CPUs.
        missing: needed paths that do not exist there.
    """

    id: str
    address: str
    interface: str | None
    devices: tuple[str, ...]
    missing: tuple[str, ...]


class NodeActor:
    """Reserve a node's devices while this actor runs; trainer ranks and engines share them and take turns.

    So Ray counts the devices correctly, and the run assigns them. Ray itself would accept two ranks with half
    a device each on one device.
    """

    def __init__(self, scratch_dir: str, needed: list[str]) -> None:
        """Create the run's temporary folder unless it exists; it is removed when this process exits."""
        self._missing = tuple(path for path in needed if not Path(path).exists())
        self._remover = create_temporary_folder(scratch_dir)

    def describe(self, resource: str) -> Node:
        """Return the description of this node; ``resource`` is Ray's name of the devices."""
        context = ray.get_runtime_context()
        address: str = ray.util.get_node_ip_address()
        devices = map(str, context.get_accelerator_ids().get(resource, ()))
        return Node(
            id=context.get_node_id(),
            address=address,
            interface=interface_of(address),
            devices=tuple(sorted(devices, key=int)),  # Ray's are in any order, CANN needs them ascending
            missing=self._missing,
        )


def create_temporary_folder(path: str) -> subprocess.Popen[bytes] | None:
    """Create a folder that is removed when this process exits, even by SIGKILL; None if it exists already.

    Raises:
        MissingRequirement: it exists, and is not a private folder of this user.
    """
    try:
        os.mkdir(path, mode=0o700)
    except FileExistsError:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise MissingRequirement(
                f"{path} on {os.uname().nodename} exists, and is not a private folder of this user",
                "find out which user made it, remove it, and start the run again",
            ) from None
        return None
    command = ["/bin/sh", "-c", REMOVE_AT_EXIT, path]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def interface_of(address: str) -> str | None:
    """Return the name of the network interface with this IP address."""
    interfaces: dict[str, list[Any]] = psutil.net_if_addrs()
    named = (name for name, entries in interfaces.items() if address in (entry.address for entry in entries))
    return next(named, None)


@dataclass
class Placement:
    """The reserved nodes, in the order of the run, and their bundles in the placement group."""

    config: RunConfig
    group: PlacementGroup
    nodes: list[Node]
    bundles: list[int]
    actors: list[ActorHandle] = field(default_factory=list)

    def start(self, kind: type, role: Role, assignment: DeviceAssignment, *args: Any) -> ActorHandle:
        """Start ``kind(config, env_spec, *args)`` as an actor on its devices."""
        bundle = self.bundles[assignment.node]
        spec = self.env_spec(role, assignment)
        options = {
            "num_cpus": 0,  # the devices of the node are reserved already
            "runtime_env": {"env_vars": spec.values},
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self.group, bundle),
        }
        actor: ActorHandle = ray.remote(kind).options(**options).remote(self.config, spec, *args)
        self.actors.append(actor)
        return actor

    def env_spec(self, role: Role, assignment: DeviceAssignment) -> EnvSpec:
        """Return the role's environment with what depends on the node. ``[env]`` overrides all of it."""
        node, cluster = self.nodes[assignment.node], self.config.recipe.cluster
        on_node = {}
        if node.devices:
            on_node[VISIBLE_DEVICES] = ",".join(node.devices[device] for device in assignment.devices)
        if role == "train" and cluster.nodes > 1 and node.interface is not None:
            on_node |= dict.fromkeys(INTERFACE_VARIABLES[cluster.device], node.interface)
        values = {**self.config.environment[role], **on_node, **self.config.recipe.env}
        required = dict(self.config.required[role])
        if cluster.device == "npu" and VISIBLE_DEVICES in values:
            required[VISIBLE_DEVICES] = RequiredVariable(
                accepts=re.escape(values[VISIBLE_DEVICES]),
                reason="each rank and engine of a node has other devices",
            )
        return EnvSpec(values=values, required=required)

    def resident_bytes(self) -> int:
        """Return the memory of all processes of the run, with Ray's daemons if the run started them."""
        total = resident_bytes()
        if self.config.address is not None:
            total += sum(ray.get([actor.resident_bytes.remote() for actor in self.actors]))
        return total


@contextmanager
def reserve(config: RunConfig, report: Callable[[str], None]) -> Iterator[Placement]:
    """Reserve the run's devices on all its nodes; release them at the end.

    Raises:
        MissingRequirement: the cluster has too few nodes with so many devices, they did not become free, or a
            node does not have the runtime or the run's files.
    """
    cluster = config.recipe.cluster
    _require_devices(config)
    group = placement_group(
        [{RESOURCES[cluster.device]: cluster.devices_per_node}] * cluster.nodes,
        strategy="STRICT_SPREAD" if cluster.nodes > 1 else "PACK",
    )
    try:
        _wait_until_free(group, config, report)
        node_actors = [_start_node_actor(config, group, bundle) for bundle in range(cluster.nodes)]
        yield _describe_nodes(config, group, node_actors)
    finally:
        # A cluster that the run started is stopped as a whole, even when it no longer responds.
        if config.address is not None:
            with suppress(Exception):  # a cluster that has exited must not hide why the run ended
                remove_placement_group(group)  # and kill all actors in it; Ray itself would do it later


def _start_node_actor(config: RunConfig, group: PlacementGroup, bundle: int) -> ActorHandle:
    cluster = config.recipe.cluster
    options = {
        **{"num_cpus": 0, **device_request(cluster.device, cluster.devices_per_node)},
        "scheduling_strategy": PlacementGroupSchedulingStrategy(group, bundle),
    }
    offload_dir = config.recipe.memory.offload_dir
    needed = [config.recipe.model.path, config.run_dir, *([offload_dir] if offload_dir else [])]
    return ray.remote(NodeActor).options(**options).remote(config.scratch_dir, needed)


def _describe_nodes(config: RunConfig, group: PlacementGroup, actors: list[ActorHandle]) -> Placement:
    """Describe every node; the node of this process comes first, so that rank 0 saves the model there."""
    resource = RESOURCES[config.recipe.cluster.device]
    try:
        found: list[Node] = ray.get(
            [actor.describe.remote(resource) for actor in actors], timeout=NODE_SECONDS
        )
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


def _wait_until_free(group: PlacementGroup, config: RunConfig, report: Callable[[str], None]) -> None:
    """Wait until Ray has reserved the devices. Raises MissingRequirement after ``FREE_SECONDS``."""
    deadline = time.monotonic() + FREE_SECONDS
    reported = ""
    while not group.wait(1):
        needs, found = _needs(config, " free"), _found(config)
        if time.monotonic() > deadline:
            raise MissingRequirement(
                f"the run needs {needs}, and waited {FREE_SECONDS} s for them; found: {found}",
                "wait for what runs there, or use fewer: cluster.nodes, cluster.devices_per_node",
            )
        if found != reported:
            report(f"waiting until it has {needs}; found: {found}")
            reported = found


def _require_devices(config: RunConfig) -> None:
    """Refuse a run that does not fit the cluster even when it is idle."""
    cluster = config.recipe.cluster
    resource = RESOURCES[cluster.device]
    large = [n for n in _alive_nodes() if n["Resources"].get(resource, 0) >= cluster.devices_per_node]
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
    """Return every node with its devices and how many of them are free."""
    resource = RESOURCES[config.recipe.cluster.device]
    free: dict[str, dict[str, float]] = {}
    with suppress(Exception):  # not a public function of Ray; the message is good enough without
        free = available_resources_per_node()
    return ", ".join(
        f"node {node['NodeManagerAddress']} {_plural(node['Resources'].get(resource, 0), resource)} "
        f"({free.get(node['NodeID'], {}).get(resource, 0):g} free)"
        for node in sorted(_alive_nodes(), key=lambda n: (n["NodeManagerAddress"], n["NodeID"]))
    )


def _alive_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _plural(count: float, noun: str, adjective: str = "") -> str:
    return f"{count:g}{adjective} {noun}{'' if count == 1 else 's'}"
