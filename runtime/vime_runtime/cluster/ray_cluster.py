"""The Ray cluster of a run: one of its own, or an existing one in which it is a guest."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from vime_runtime.cluster import external_cluster
from vime_runtime.cluster.placement import Placement, reserve
from vime_runtime.cluster.resources import quantity
from vime_runtime.spec.run_config import RunConfig

# Ray refuses less. Nothing large passes through the object store: weights travel by handle.
OBJECT_STORE_BYTES = 80 * 1024**2


@contextmanager
def cluster(config: RunConfig, tell: Callable[[str], None] = lambda detail: None) -> Iterator[Placement]:
    """Start or join a Ray cluster and reserve the run's devices; afterwards leave nothing of the run in it.

    Args:
        tell: is told what is waited for, if anything.

    Yields:
        the nodes of the run, on which its actors are started.

    Raises:
        MissingRequirement: the cluster does not answer, or does not have what the run needs.
    """
    if config.address is None:
        _start(config)
    else:
        external_cluster.connect(config.address, namespace=Path(config.scratch_dir).name)
    try:
        with reserve(config, tell) as placement:
            yield placement
    finally:
        ray.shutdown()  # ends a cluster that this process started, and only leaves any other


def _start(config: RunConfig, attempts: int = 3) -> None:
    """Start Ray. It gives its own daemons a fixed 30 s, which a busy machine can overrun: try again then."""
    # A token of this run's own: nobody else can join, and none is written to the user's home.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    devices = config.recipe.cluster.devices_per_node
    try:
        ray.init(
            address="local",  # never somebody else's cluster, whatever RAY_ADDRESS says
            **{"num_cpus": devices, **quantity(config.recipe.cluster.device, devices)},
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            configure_logging=False,
            log_to_driver=False,  # every process of the run writes its own file
            _temp_dir=f"{config.scratch_dir}/ray",
        )
    except Exception as e:  # Ray raises nothing more specific
        if attempts == 1 or "timed out during startup" not in str(e):
            raise
        ray.shutdown()
        _start(config, attempts - 1)
