"""Read the processes of the machine, what earlier runs left behind, and the TCP ports in use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from vime_runtime.spec.run_paths import SCRATCH_PREFIX

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import Host

# The path of the scratch directory of a run. The environment of all its processes has it.
SCRATCH = re.compile(rf"[^\0=:,\"\s]*/{SCRATCH_PREFIX}[0-9a-f]{{8}}(?=[/\0\"\s]|$)")
# proc(5), /proc/net/tcp: number, local address and port, remote address and port, state.
_SOCKET = re.compile(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) ", re.MULTILINE)
_LISTEN = "0A"


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


def read_processes(host: Host) -> list[ProcessFacts]:
    """Return the processes in the order of their ids."""
    found = []
    for pid in sorted(int(name) for name in host.names("/proc") if name.isdecimal()):
        argv, environ = host.read(f"/proc/{pid}/cmdline") or "", host.read(f"/proc/{pid}/environ") or ""
        found.append(
            ProcessFacts(
                pid,
                tuple(argv.rstrip("\0").split("\0")),
                frozenset(SCRATCH.findall(f"{argv}\0{environ}")),
                _status_number(host, pid, "PPid"),
                _status_number(host, pid, "Uid"),
            )
        )
    return found


def _status_number(host: Host, pid: int, name: str) -> int | None:
    found = host.search(f"/proc/{pid}/status", rf"^{name}:\s+(\d+)")
    return int(found[1]) if found else None


def read_ports(host: Host, listening: bool = False) -> frozenset[int]:
    """Return the local TCP ports in use, IPv4 and IPv6: of all sockets, or only those with a listener."""
    tables = (host.read(f"/proc/net/{name}") or "" for name in ("tcp", "tcp6"))
    sockets = [socket for table in tables for socket in _SOCKET.findall(table)]
    return frozenset(int(port, 16) for port, state in sockets if state == _LISTEN or not listening)


def read_ephemeral_ports(host: Host) -> range:
    """Return the ports that the kernel assigns by itself. Raises Unavailable."""
    path = "/proc/sys/net/ipv4/ip_local_port_range"
    found = host.search(path, r"^(\d+)\s+(\d+)$")
    if found is None:
        raise Unavailable(f"{path} cannot be read")
    return range(int(found[1]), int(found[2]) + 1)


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
