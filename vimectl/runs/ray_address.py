"""Which existing Ray cluster ``--address`` means."""

from __future__ import annotations

import re

from vime_runtime.spec.errors import UsageError

from vimectl.util.host import Host

AUTO = "auto"
# What `ray start` leaves for those who say "auto": ray/ray_current_cluster in its temporary folder.
CURRENT_CLUSTER = "ray/ray_current_cluster"

HINT = "give host:port of its head node, as `ray start --head` prints it, or auto"


def resolve(given: str, host: Host) -> str:
    """Turn an address into the "host:port" at which the head node of a cluster answers.

    ``auto`` is ``RAY_ADDRESS`` if that is set, else the cluster that `ray start` started last on this
    machine. Unlike Ray, which would go on to search the list of processes, it is nothing else: other
    runs have clusters of their own here.

    Raises:
        UsageError: it is no such address, or there is no cluster that ``auto`` could mean.
    """
    address = _current(host) if given == AUTO else given
    if not re.fullmatch(r"([^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):\d{1,5}", address):
        raise UsageError(f"{address!r} is not the address of a Ray cluster", HINT)
    return address


def _current(host: Host) -> str:
    named = host.environment.get("RAY_ADDRESS", "")
    if named not in ("", AUTO, "local"):
        return named
    folder = host.environment.get("RAY_TMPDIR") or host.environment.get("TMPDIR") or "/tmp"
    path = f"{folder}/{CURRENT_CLUSTER}"
    try:
        return host.path(path).read_text(encoding="utf-8").strip()
    except OSError:
        raise UsageError(
            f"no Ray cluster for auto: RAY_ADDRESS is not set, and there is no {path}", HINT
        ) from None
