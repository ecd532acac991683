"""cluster: existing Ray clusters, and the addresses and ports at which processes connect."""

from __future__ import annotations

import re

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.check import CheckList, CheckResult, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.processes import read_ephemeral_ports, read_ports, read_processes
from vimectl.util import ray_address

CHECKS = CheckList()

_DAEMONS = ("raylet", "gcs_server")
_SESSION = re.compile(r"--(?:session[-_]dir|temp-dir|log_dir)=(\S+)")
# A run on eight devices used about three hundred; each Ray process listens on several.
_PORTS = 1024
_IFF_UP = 1


@CHECKS.add("cluster.ray", running=True)
def ray_clusters(facts: Facts) -> CheckResult:
    # A daemon with a scratch directory in its arguments or environment belongs to a run.
    """A run starts its own Ray cluster; another one may have actors that hold devices and memory."""
    daemons = [p for p in facts.read(read_processes) if p.program in _DAEMONS and not p.scratch]
    users, found = set(), []
    for one in daemons:
        user = "an unknown user"
        if one.user is not None:
            name = facts.search("/etc/passwd", rf"^([^:\n]+):[^:]*:{one.user}:")
            user = name or f"user {one.user}"
        matches = filter(None, map(_SESSION.match, one.argv))
        session = next((match[1] for match in matches), "an unknown directory")
        users.add(user)
        found.append(f"{one.program} {one.pid} of {user} in {session}")
    return warn_unless(
        not daemons,
        "; ".join(found[:4]) or "only those of runs",
        "none, or one that the run is to join with --address",
        f"ask {', '.join(sorted(users))} if it is in use: ray status; `ray stop` ends your own",
    )


@CHECKS.add("cluster.address", running=True, expected="no address, or a valid one")
def address(facts: Facts) -> CheckResult | str:
    """A run on several nodes uses an existing cluster, given by --address; auto means RAY_ADDRESS, or the
    cluster that `ray start` started last on this machine.
    """
    nodes = facts.optional_recipe.cluster.nodes if facts.optional_recipe else 1
    if not facts.environment.get("RAY_ADDRESS") and nodes == 1:
        return "RAY_ADDRESS is not set; a run starts its own Ray cluster"
    try:
        found = facts.read(ray_address.resolve)
    except VimeError as e:
        return CheckResult("warn", e.message, f"a cluster of {nodes} nodes to give as --address", e.hint)
    return found if nodes > 1 else f"{found}, used by a run with --address auto only"


@CHECKS.add("cluster.ports")
def free_ports(facts: Facts) -> CheckResult:
    """Ray, gloo and the engines listen on ports that the kernel assigns from ip_local_port_range."""
    kernel = facts.read(read_ephemeral_ports)
    used = sum(port in kernel for port in facts.read(read_ports))
    free = len(kernel) - used
    return warn_unless(
        free >= _PORTS,
        f"{kernel[0]} to {kernel[-1]}, {used} in use: {free} free",
        f"{_PORTS} free",
        'sysctl -w net.ipv4.ip_local_port_range="32768 60999", or end what uses them (ss -tan)',
    )


@CHECKS.add("cluster.loopback")
def loopback(facts: Facts) -> CheckResult:
    """The processes of one machine communicate over the interface lo."""
    flags = facts.text("/sys/class/net/lo/flags")
    try:
        up = bool(int(flags, 16) & _IFF_UP)
    except ValueError as e:
        raise Unavailable(f"/sys/class/net/lo/flags has no number: {flags}") from e
    return result(up, f"lo is {'up' if up else 'down'} (flags {flags})", "lo is up", "ip link set lo up")


@CHECKS.add("cluster.localhost")
def localhost(facts: Facts) -> CheckResult:
    """Libraries resolve the name localhost, and not all of them know it themselves."""
    text = facts.text("/etc/hosts")
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    addresses = [words[0] for words in lines if "localhost" in words[1:]]
    return warn_unless(
        any(address.startswith("127.") or address == "::1" for address in addresses),
        f"/etc/hosts has localhost as {', '.join(addresses)}" if addresses else "/etc/hosts has no localhost",
        "127.0.0.1 localhost",
        "add the line `127.0.0.1 localhost` to /etc/hosts",
    )
