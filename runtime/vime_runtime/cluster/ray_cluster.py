"""A private Ray cluster for one run, and the placement of its actors.

Every device of the run is one bundle. A colocated trainer rank and the engine that owns the
same device sit in the same bundle, each taking part of it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.placement_group import PlacementGroup, placement_group

from vime_runtime.config import Config

# Ray refuses less. Nothing large passes through the object store: weights travel by handle.
OBJECT_STORE_BYTES = 80 * 1024**2

DEVICE = "vime_device"


@contextmanager
def private_cluster(config: Config) -> Iterator[PlacementGroup]:
    """Start a Ray cluster of this run's own, reserve its devices, and take it down again.

    Yields:
        a placement group with one bundle of one device for each device of the run.
    """
    # A token of this run's own: nobody else can join, and none is written to the user's home.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    devices = config.recipe.cluster.nodes * config.recipe.cluster.devices_per_node
    _start(devices, f"{config.scratch_dir}/ray")
    try:
        group = placement_group([{DEVICE: 1, "CPU": 1}] * devices, strategy="PACK")
        ray.get(group.ready(), timeout=60)
        yield group
    finally:
        ray.shutdown()


def _start(devices: int, folder: str, attempts: int = 3) -> None:
    """Start Ray. It gives its own daemons a fixed 30 s, which a busy machine can overrun: try again then."""
    try:
        ray.init(
            address="local",  # never somebody else's cluster, whatever RAY_ADDRESS says
            num_cpus=devices,
            resources={DEVICE: devices},
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,  # every process of the run writes its own file
            _temp_dir=folder,
        )
    except Exception as e:  # Ray raises nothing more specific
        if attempts == 1 or "timed out during startup" not in str(e):
            raise
        ray.shutdown()
        _start(devices, folder, attempts - 1)
