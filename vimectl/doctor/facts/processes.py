"""Read the processes of the machine, what earlier runs left behind, and the TCP ports in use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from vime_runtime.spec.run_paths import SCRATCH_PREFIX

from vimectl.doctor.facts import Unavailable
from vimectl.util import ray_address
from vimectl.util.host import Host

# The scratch directory of a run. The environment of all its processes has it.
_SCRATCH = re.compile(rf"[^\0=:,\"\s]*/{SCRATCH_PREFIX}[0-9a-f]{{8}}(?=[/\0\"\s]|$)")
# proc(5), /proc/net/tcp: number, local address and port, remote address and port, state.
_SOCKET = re.compile(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) ", re.MULTILINE)
_LISTEN = "0A"
_SYSCTL = "/proc/sys/net/ipv4"


@dataclass(frozen=True)
class ProcessFacts:
    """A process. ``scratch`` are the scratch directories of runs in its arguments and environment.

    ``parent`` and ``user`` are None if its status cannot be read.
    """

    pid: int
    argv: tuple[str, ...]
    scratch: frozenset[str]
    parent: int | None
    user: int | None

    @property
    def program(self) -> str:
        """The name of the program, without its directory."""
        return PurePosixPath(self.argv[0]).name


@dataclass(frozen=True)
class PortUsage:
    """Local TCP ports, IPv4 and IPv6: those with a listener, and those of all sockets."""

    listening: frozenset[int]
    in_use: frozenset[int]


@dataclass(frozen=True)
class EphemeralPorts:
    """The first and last port that the kernel assigns itself, and the reserved list as it is written."""

    first: int
    last: int
    reserved: str


def read_processes(host: Host) -> list[ProcessFacts]:
    """Return the processes in the order of their ids."""
    pids = sorted(int(folder.name) for folder in host.path("/proc").glob("[0-9]*"))
    found = []
    for pid in pids:
        argv, environ = host.read(f"/proc/{pid}/cmdline") or "", host.read(f"/proc/{pid}/environ") or ""
        status = host.read(f"/proc/{pid}/status") or ""
        found.append(
            ProcessFacts(
                pid,
                tuple(argv.rstrip("\0").split("\0")),
                frozenset(_SCRATCH.findall(f"{argv}\0{environ}")),
                _status_number(status, "PPid"),
                _status_number(status, "Uid"),
            )
        )
    return found


def _status_number(status: str, name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else None


def read_scratch_directories(host: Host) -> list[str]:
    """Return the scratch directories of runs that exist in /tmp and TMPDIR."""
    places = dict.fromkeys(("/tmp", host.environment.get("TMPDIR", "/tmp").rstrip("/")))
    pattern = f"{SCRATCH_PREFIX}*"
    paths = [f"{place}/{path.name}" for place in places for path in sorted(host.path(place).glob(pattern))]
    return [path for path in paths if _SCRATCH.fullmatch(path)]


def read_user_name(host: Host, user: int) -> str:
    """Return the name of a user, or ``user 1000`` if /etc/passwd does not have it."""
    found = re.search(rf"^([^:\n]+):[^:]*:{user}:", host.read("/etc/passwd") or "", re.MULTILINE)
    return found[1] if found else f"user {user}"


def read_ray_address(host: Host) -> str:
    """Return the address that ``--address auto`` means. Raises UsageError if there is no cluster."""
    return ray_address.resolve(ray_address.AUTO, host)


def read_ports(host: Host) -> PortUsage:
    """Return the local TCP ports in use."""
    tables = (host.read(f"/proc/net/{name}") or "" for name in ("tcp", "tcp6"))
    sockets = [(int(port, 16), state) for table in tables for port, state in _SOCKET.findall(table)]
    return PortUsage(
        frozenset(port for port, state in sockets if state == _LISTEN),
        frozenset(port for port, _ in sockets),
    )


def read_ephemeral_ports(host: Host) -> EphemeralPorts:
    """Return the ports that the kernel assigns by itself. Raises Unavailable."""
    path = f"{_SYSCTL}/ip_local_port_range"
    found = re.fullmatch(r"(\d+)\s+(\d+)", (host.read(path) or "").strip())
    if found is None:
        raise Unavailable(f"{path} cannot be read")
    reserved = (host.read(f"{_SYSCTL}/ip_local_reserved_ports") or "").strip()
    return EphemeralPorts(int(found[1]), int(found[2]), reserved)


def parse_ports(text: str) -> list[int] | None:
    """Return the ports of a list like ``60000,60010-60020``, repeated as written; None if it is malformed."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if not match:
            return None
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= 65535:
            return None
        found += range(first, last + 1)
    return found


def format_ports(ports: Iterable[int]) -> str:
    """Return ports as a list with ranges.

    >>> format_ports([60000, 60001, 60002, 60010])
    '60000-60002,60010'
    """
    runs: list[list[int]] = []
    for port in sorted(ports):
        if runs and port == runs[-1][1] + 1:
            runs[-1][1] = port
        else:
            runs.append([port, port])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
