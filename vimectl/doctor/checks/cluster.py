"""cluster: existing Ray clusters, and the addresses and ports at which processes connect."""

from __future__ import annotations

import re

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.check import CheckList, CheckResult, Status, listed, result, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.account import read_user_name
from vimectl.doctor.facts.environment import read_variable
from vimectl.doctor.facts.processes import (
    PROCESS_READS,
    ProcessFacts,
    read_ephemeral_ports,
    read_ports,
    read_processes,
)
from vimectl.util import ray_address
from vimectl.util.scratch_directory import SCRATCH

CHECKS = CheckList()

_DAEMONS = ("raylet", "gcs_server")
_SESSION = re.compile(r"--(?:session[-_]dir|temp-dir|log_dir)=(\S+)")
# A run on eight devices used about three hundred; each Ray process listens on several.
_PORTS = 1024
_IFF_UP = 1
_INTERFACE = "GLOO_SOCKET_IFNAME"
# What inet_aton(3) accepts: one to four numbers, decimal, octal or hexadecimal.
_NUMBER = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)(\.(0[xX][0-9a-fA-F]+|\d+)){0,3}")


@CHECKS.add(
    "cluster.ray",
    running=True,
    source="Ray 2.48: command lines of raylet and gcs_server, ray_params.py",
    reads=(*PROCESS_READS, "/etc/passwd", "getent passwd *"),
)
def ray_clusters(facts: Facts) -> CheckResult:
    """A run starts its own Ray cluster; another one may have actors that hold devices and memory."""
    users, found = set(), []
    for one in external_daemons(facts):
        sessions = _sessions(one)
        user = "an unknown user"
        if one.user is not None:
            user = facts.read(read_user_name, one.user) or f"user {one.user}"
        users.add(user)
        found.append(
            f"{one.program} {one.pid} of {user} in {sessions[0] if sessions else 'an unknown directory'}"
        )
    return warn_unless(
        not found,
        listed(found, separator="; ") or "only those of runs",
        "none, or one that the run is to join with --address",
        f"ask {', '.join(sorted(users))} whether it is in use (ray status); its owner can end it",
    )


def external_daemons(facts: Facts) -> list[ProcessFacts]:
    """Return the daemons of Ray clusters that no run of ours started."""
    return [
        one
        for one in facts.read(read_processes)
        # A daemon whose session is in a scratch directory belongs to a run.
        if one.program in _DAEMONS and not one.scratch and not any(map(SCRATCH.match, _sessions(one)))
    ]


def _sessions(process: ProcessFacts) -> list[str]:
    return [match[1] for match in map(_SESSION.match, process.argv) if match]


@CHECKS.add(
    "cluster.address",
    running=True,
    expected="no address, or a valid one",
    source="vimectl/util/ray_address.py; Ray 2.48: RAY_ADDRESS, ray_current_cluster",
    reads=("$RAY_ADDRESS", "$RAY_TMPDIR", "$TMPDIR", "*/ray/ray_current_cluster"),
)
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


@CHECKS.add(
    "cluster.ports",
    source="ip-sysctl of the kernel: ip_local_port_range",
    reads=("/proc/net/tcp", "/proc/net/tcp6", "/proc/sys/net/ipv4/ip_local_port_range"),
)
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


@CHECKS.add(
    "cluster.loopback",
    source="netdevice(7): IFF_UP",
    reads=("/sys/class/net/lo/flags",),
)
def loopback(facts: Facts) -> CheckResult:
    """The processes of one machine communicate over the interface lo."""
    flags = facts.text("/sys/class/net/lo/flags")
    try:
        up = bool(int(flags, 16) & _IFF_UP)
    except ValueError as e:
        raise Unavailable(f"/sys/class/net/lo/flags has no number: {flags}") from e
    return result(up, f"lo is {'up' if up else 'down'} (flags {flags})", "lo is up", "ip link set lo up")


@CHECKS.add("cluster.localhost", source="hosts(5)", reads=("/etc/hosts",))
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


@CHECKS.add(
    "cluster.hostname",
    running=True,
    source="Ray 2.48: services.py, node_ip_address_from_perspective; hosts(5): 127.0.1.1; inet_aton(3); "
    "torch: ProcessGroupGloo.cpp, createDefaultDevice; gpustack#4128",
    reads=("/etc/hosts", "/proc/sys/kernel/hostname", "/proc/net/route", f"${_INTERFACE}"),
)
def hostname(facts: Facts) -> CheckResult:
    """Without a default route Ray looks up the name of the host for the address that it gives to other nodes,
    which cannot reach a loopback address; gloo looks it up too. A name that is a number is an address.
    """
    name = facts.text("/proc/sys/kernel/hostname")
    if _NUMBER.fullmatch(name):
        return _numeric_name(facts, name)
    if facts.nodes == 1:
        return CheckResult("pass", f"{name}; one node")
    lines = [line.partition("#")[0].split() for line in facts.text("/etc/hosts").splitlines()]
    addresses = [words[0] for words in lines if name in words[1:]]
    found = f"/etc/hosts has {name} as {', '.join(addresses)}" if addresses else f"/etc/hosts has no {name}"
    if interface := facts.search("/proc/net/route", r"^(\S+)\t00000000\t"):
        return CheckResult("pass", f"{found}; the default route is on {interface}")
    # The first line with the name is the answer.
    wrong = [address for address in addresses[:1] if address.startswith("127.") or address == "::1"]
    return result(
        not wrong,
        f"{found}; no default route",
        f"the address of this node for {name}",
        f"in /etc/hosts, replace {''.join(wrong)} by the address of this node in the line of {name}",
    )


def _numeric_name(facts: Facts, name: str) -> CheckResult:
    """Return the result for a name of the host that the resolver takes as an address."""
    given = facts.read(read_variable, facts.optional_recipe, _INTERFACE)
    routed = facts.search("/proc/net/route", r"^(\S+)\t00000000\t")
    # The launcher gives gloo an interface, so only what is started by hand looks up the name.
    bad: Status = "fail" if facts.nodes > 1 and not routed else "warn"
    return result(
        given.here is not None and bad == "warn",
        f"{name}, which the resolver takes as an address" + (f"; {given}" if given.here else ""),
        "a name that is not a number",
        f"hostnamectl set-hostname node-{name}, as root  (a container: --hostname node-{name}); "
        f"or, on one machine, export {_INTERFACE}=lo",
        bad,
    )
