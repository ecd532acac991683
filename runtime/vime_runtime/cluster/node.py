"""One node of a run: an actor that holds the node's devices and says what only the node itself can know."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

# Waits until the pipe's other end is closed, however that comes about, and removes the folder. In the
# background: Ray kills the children of an actor that ends, but not what has left their ranks.
SWEEP = 'exec 3<&0; (cat <&3 >/dev/null; rm -rf "$0") &'


@dataclass(frozen=True)
class Node:
    """What a node says of itself.

    ``devices`` are the physical ids of those that the run has there, none for CPUs; ``interface`` is the
    network interface that has the node's address, if any has; ``missing`` the paths that are not there.
    """

    id: str
    address: str
    interface: str | None
    devices: tuple[str, ...]
    missing: tuple[str, ...]


class NodeActor:
    """Reserves a node's devices as long as it lives; trainer ranks and engines share them in turns.

    So Ray's books are right, and who uses which of them is decided by the run alone: Ray would pack two
    halves of different ranks onto one device.
    """

    def __init__(self, scratch_dir: str, needed: list[str]) -> None:
        """Make the run's temporary folder, where the launcher has not made it; gone with this process."""
        self._missing = tuple(path for path in needed if not Path(path).exists())
        self._sweeper = own_folder(scratch_dir)

    def describe(self, resource: str) -> Node:
        """Say what this node is; ``resource`` is Ray's name for the devices."""
        context = ray.get_runtime_context()
        address = ray.util.get_node_ip_address()
        return Node(
            id=context.get_node_id(),
            address=address,
            interface=interface_of(address),
            devices=in_order(context.get_accelerator_ids().get(resource, ())),
            missing=self._missing,
        )


def in_order(devices: Iterable[object]) -> tuple[str, ...]:
    """Device ids, ascending: Ray gives a set, and CANN reads ``ASCEND_RT_VISIBLE_DEVICES`` only if it is so.

    Those that are not numbers (CUDA also takes UUIDs) come last.
    """
    ids = [str(device) for device in devices]
    return tuple(sorted(ids, key=lambda one: (not one.isdigit(), int(one) if one.isdigit() else 0, one)))


def own_folder(path: str) -> subprocess.Popen[bytes] | None:
    """Make a folder that is removed when this process has ended, even by SIGKILL. None: it was there."""
    try:
        os.mkdir(path, mode=0o700)
    except FileExistsError:
        return None
    return subprocess.Popen(["/bin/sh", "-c", SWEEP, path], stdin=subprocess.PIPE, start_new_session=True)


def interface_of(address: str) -> str | None:
    """The name of the network interface with this IP address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    return None
