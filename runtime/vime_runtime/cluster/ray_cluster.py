"""The Ray cluster of a run: started for the run by default, or an existing one of the user."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray

from vime_runtime.cluster import external_cluster
from vime_runtime.cluster.actors import process_entry
from vime_runtime.cluster.placement import Placement, device_request, reserve
from vime_runtime.spec import process_roles
from vime_runtime.spec.process_roles import ProcessEntry
from vime_runtime.spec.run_config import RunConfig

# The minimum that Ray accepts. Only small objects use the object store: weights are passed by handle.
OBJECT_STORE_BYTES = 80 * 1024**2

# Program name and role of the daemons that Ray starts as children of this process.
DAEMONS = {"gcs_server": process_roles.GCS, "raylet": process_roles.RAYLET}


@contextmanager
def ray_cluster(config: RunConfig, report: Callable[[str], None]) -> Iterator[Placement]:
    """Start or join a Ray cluster and reserve the run's devices; stop or leave it at the end.

    Args:
        report: is called with what the run waits for.

    Yields:
        the reserved nodes, on which the actors are started.

    Raises:
        MissingRequirement: the cluster does not answer, or does not have what the run needs.
    """
    if config.address is None:
        # A token for this run: no other process can join, and Ray writes none to the home directory. Every
        # attempt has the same one, because Ray reads the variable once in a process.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        _start(config)
    else:
        external_cluster.connect(config.address, namespace=Path(config.scratch_dir).name)
    try:
        with reserve(config, report) as placement:
            yield placement
    finally:
        ray.shutdown()  # stops a cluster that this process started, and only disconnects from an existing one


def driver_processes() -> list[ProcessEntry]:
    """Return this process and the Ray daemons that it started."""
    found = [process_entry(process_roles.DRIVER)]
    for name, role in DAEMONS.items():
        pids = sorted(child.pid for child in psutil.Process().children() if child.name() == name)
        found += [process_entry(role, rank, pid) for rank, pid in enumerate(pids)]
    return found


def _start(config: RunConfig, attempts: int = 3) -> None:
    """Start Ray, again if it timed out: its daemons have a fixed 30 s, too short on a busy machine."""
    devices = config.recipe.cluster.devices_per_node
    try:
        ray.init(
            address="local",  # a new cluster, even if RAY_ADDRESS names one
            **{"num_cpus": devices, **device_request(config.recipe.cluster.device, devices)},
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,  # every process of the run writes its own log
            _temp_dir=f"{config.scratch_dir}/ray",
        )
    except Exception as e:  # Ray raises nothing more specific
        if attempts == 1 or "timed out during startup" not in str(e):
            raise
        ray.shutdown()
        _start(config, attempts - 1)
