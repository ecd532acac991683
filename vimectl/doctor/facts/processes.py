"""Read the processes of the machine, the scratch directories of runs, and the TCP ports in use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from vimectl.doctor.facts import Unavailable
from vimectl.util.host import Host
from vimectl.util.scratch_directory import SCRATCH, ScratchDirectory, read_scratch_directory

# proc(5), /proc/net/tcp: number, local address and port, remote address and port, state.
_SOCKET = re.compile(r"^\s*\d+: [0-9A-F]+:([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) ", re.MULTILINE)
_LISTEN = "0A"
PROCESS_READS = ("/proc", "/proc/*/cmdline", "/proc/*/environ", "/proc/*/status")


@dataclass(frozen=True)
class ProcessFacts:
    """A process. ``parent`` and ``user`` are None if its status cannot be read.

    ``scratch`` is the scratch directory of the run that gave it its TMPDIR: every process of a run has it in
    its environment. ``nested``: it is in another PID namespace, that of a container.
    """

    pid: int
    argv: tuple[str, ...]
    scratch: str | None
    parent: int | None
    user: int | None
    nested: bool

    @property
    def program(self) -> str:
        """The name of the program, without its directory."""
        return PurePosixPath(self.argv[0]).name


def read_processes(host: Host) -> list[ProcessFacts]:
    """Return the processes in the order of their ids."""
    found = []
    for pid in sorted(int(name) for name in host.names("/proc") if name.isdecimal()):
        argv, environ = host.read(f"/proc/{pid}/cmdline") or "", host.read(f"/proc/{pid}/environ") or ""
        temporary = dict(entry.partition("=")[::2] for entry in environ.split("\0")).get("TMPDIR", "")
        found.append(
            ProcessFacts(
                pid,
                tuple(argv.rstrip("\0").split("\0")),
                temporary if SCRATCH.fullmatch(temporary) else None,
                _status_number(host, pid, "PPid"),
                _status_number(host, pid, "Uid"),
                # The ids in this and each nested namespace, proc_pid_status(5).
                host.search(f"/proc/{pid}/status", r"^NSpid:\s+\d+$") is None,
            )
        )
    return found


def read_run_processes(host: Host) -> list[ProcessFacts]:
    """Return the processes that are proven to be of runs of this user on this machine.

    Each has this user's id and the scratch directory of a run in its environment. Arguments prove nothing,
    nor does the environment of another user's process: both can name any run. Processes in containers are not
    among them, nor is this process, or one of those from which it descends, in a run's environment.
    """
    user, own = read_user(host), read_own_processes(host)
    return [
        process
        for process in read_processes(host)
        if process.scratch
        and user is not None
        and process.user == user
        and not process.nested
        and process.pid not in own
    ]


def read_ray_version(host: Host, raylet: str) -> tuple[str, str]:
    """Return the versions of Ray and Python of a raylet, by its path; empty where nothing says them."""
    package = raylet.partition("/core/src/ray/raylet/")[0]
    found = host.search(f"{package}/_version.py", r"^version = [\"']([^\"']+)")
    python = re.search(r"/python(3\.\d+)/", package)
    return found[1] if found else "", python[1] if python else ""


def read_own_processes(host: Host) -> frozenset[int]:
    """Return the ids of this process and of those from which it descends."""
    found: set[int] = set()
    one: int | str = "self"
    while one and (pid := _status_number(host, one, "Pid")) and pid not in found:
        found.add(pid)
        one = _status_number(host, pid, "PPid") or 0
    return frozenset(found)


def read_user(host: Host) -> int | None:
    """Return the id of this user, None if it cannot be read."""
    return _status_number(host, "self", "Uid")


def read_scratch_directories(host: Host) -> list[ScratchDirectory]:
    """Return the scratch directories where runs create them, and those that processes have as TMPDIR."""
    # Looked through; nothing is created there.
    places = dict.fromkeys(("/tmp", host.environment.get("TMPDIR", "/tmp").rstrip("/")))  # nosec B108
    listed = [f"{place}/{name}" for place in places for name in host.names(place)]
    used = [process.scratch for process in read_processes(host) if process.scratch]
    paths = dict.fromkeys([path for path in listed if SCRATCH.fullmatch(path)] + used)
    return [read_scratch_directory(host, path) for path in paths if host.is_dir(path)]


def _status_number(host: Host, pid: int | str, name: str) -> int | None:
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
