"""The Ray cluster of a run: started for the run by default, or an existing one of the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray

from vime_runtime.cluster import external_cluster, private_ray
from vime_runtime.cluster.actors import process_entry
from vime_runtime.cluster.placement import Placement, device_request, reserve
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.process_roles import RAY_DAEMONS, ProcessEntry
from vime_runtime.spec.run_config import RunConfig

# The minimum that Ray accepts. Only small objects use the object store: weights are passed by handle.
OBJECT_STORE_BYTES = 80 * 1024**2


@contextmanager
def ray_cluster(config: RunConfig, log: EventLog) -> Iterator[Placement]:
    """Start or join a Ray cluster and reserve the run's devices; stop or leave it at the end.

    Args:
        log: records the processes of Ray, and what the run waits for.

    Yields:
        the reserved nodes, on which the actors are started.

    Raises:
        MissingRequirement: the cluster does not answer, or does not have what the run needs.
    """
    if config.address is None:
        private_ray.prepare(Path(config.scratch_dir))
        _start(config, log)
    else:
        external_cluster.connect(config.address, namespace=Path(config.scratch_dir).name)
    try:
        if config.address is None:
            private_ray.require_loopback()
        with reserve(config, log.starting) as placement:
            yield placement
    finally:
        log.closing(_daemons())
        ray.shutdown()  # stops a cluster that this process started, and only disconnects from an existing one


def _start(config: RunConfig, log: EventLog, attempts: int = 3) -> None:
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
        log.closing(_daemons())
        ray.shutdown()
        _start(config, log, attempts - 1)
    else:
        log.processes(_daemons())


def _daemons() -> list[ProcessEntry]:
    """Return the daemons of Ray that this process started."""
    children = sorted(psutil.Process().children(), key=lambda child: child.pid)
    return [
        process_entry(RAY_DAEMONS[child.name()], 0, child.pid)
        for child in children
        if child.name() in RAY_DAEMONS
    ]
