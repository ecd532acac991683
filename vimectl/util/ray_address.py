"""Resolve ``--address`` to the head node of an existing Ray cluster."""

from __future__ import annotations

import re

from vime_runtime.spec.errors import UsageError

from vimectl.util.host import Host

AUTO = "auto"
# `ray start` writes its address to this file in its temporary folder.
CURRENT_CLUSTER = "ray/ray_current_cluster"

HINT = "give host:port of its head node, as `ray start --head` prints it, or auto"


def resolve(host: Host, given: str = AUTO) -> str:
    """Return the "host:port" of the head node that an address names.

    ``auto`` is ``RAY_ADDRESS`` if that is set, else the cluster that `ray start` started last here.
    Ray would also search the list of processes; this function does not, because every run on this machine may
    have its own private cluster.

    Raises:
        UsageError: the address is malformed, or there is no cluster that ``auto`` could mean.
    """
    address = _current(host) if given == AUTO else given
    if not re.fullmatch(r"([^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}", address):
        raise UsageError(f"{address!r} is not the address of a Ray cluster", HINT)
    return address


def _current(host: Host) -> str:
    named = host.environment.get("RAY_ADDRESS", "")
    if named not in ("", AUTO, "local"):
        return named
    # As Ray searches.
    folder = host.environment.get("RAY_TMPDIR") or host.environment.get("TMPDIR") or "/tmp"  # nosec B108
    path = f"{folder}/{CURRENT_CLUSTER}"
    text = host.read(path)
    if text is None:
        problem = host.problem(path)
        raise UsageError(f"no Ray cluster for auto: RAY_ADDRESS is not set, and {path} is {problem}", HINT)
    return text.strip()
