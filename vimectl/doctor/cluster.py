"""cluster: Ray clusters that are there already, and the addresses and ports at which processes meet."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.doctor.ports import in_use
from vimectl.stacks.schema import Stack
from vimectl.util import ray_address
from vimectl.util.host import Host

_DAEMONS = ("raylet", "gcs_server")
# The private folder of a run, as vimectl.runs.plan names it: its Ray is its own.
_OF_A_RUN = re.compile(r"/vime-[0-9a-f]{8}/")
_SESSION = re.compile(r"--(?:session[-_]dir|temp-dir|log_dir)=([^\0\s]+)")
# A run on eight devices was seen to use some three hundred; each process of Ray listens on several.
_PORTS = 1024
_IFF_UP = 1


@dataclass(frozen=True)
class Daemon:
    """One of Ray's own processes: its id, its user and where its cluster keeps its files."""

    program: str
    pid: int
    user: str
    folder: str


def checks(stack: Stack) -> list[Check]:
    return [
        Check(
            "cluster.ray",
            "a run starts a Ray of its own; another one may have actors that hold devices and memory",
            _ray,
        ),
        Check(
            "cluster.address",
            "several nodes are an existing cluster, which --address names; auto means RAY_ADDRESS, or what "
            "`ray start` started last here",
            _address,
        ),
        Check(
            "cluster.ports",
            "Ray, gloo and the engines listen on ports that the kernel chooses from ip_local_port_range",
            _ports,
        ),
        Check("cluster.loopback", "the processes of one machine talk over the interface lo", _loopback),
        Check("cluster.localhost", "libraries look the name localhost up, and not all know it", _localhost),
    ]


def daemons(host: Host) -> list[Daemon]:
    """The processes of every Ray cluster here that is no run's own."""
    found = []
    for folder in sorted(host.path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        argv = host.read(f"/proc/{folder.name}/cmdline") or ""
        program = PurePosixPath(argv.split("\0")[0]).name
        if program in _DAEMONS and not _OF_A_RUN.search(argv.replace("\0", "/") + "/"):
            session = _SESSION.search(argv)
            user = _user(host, folder.name)
            found.append(
                Daemon(program, int(folder.name), user, session[1] if session else "an unknown folder")
            )
    return found


def _user(host: Host, pid: str) -> str:
    """The name of a process's user, or its number where there is no name."""
    status = host.read(f"/proc/{pid}/status") or ""
    uid = re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)
    if uid is None:
        return "somebody"
    name = re.search(rf"^([^:\n]+):[^:]*:{uid[1]}:", host.read("/etc/passwd") or "", re.MULTILINE)
    return name[1] if name else f"user {uid[1]}"


def _ray(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped("a file system without /proc is no running machine")
    found = daemons(subject.host)
    text = "; ".join(f"{one.program} {one.pid} of {one.user} in {one.folder}" for one in found[:4])
    owners = {one.user for one in found}
    return judged(
        not found,
        text or "none but those of runs",
        "none, or one that the run is to join with --address",
        f"ask {', '.join(sorted(owners))} whether it is in use: ray status; `ray stop` ends all of one's own",
        "warn",
    )


def _address(subject: Subject) -> Outcome:
    if not subject.host.is_running:
        return skipped("a file system without /proc is no running machine")
    given = subject.host.environment.get("RAY_ADDRESS")
    nodes = subject.recipe.cluster.nodes if subject.recipe else 1
    if not given and nodes == 1:
        return Outcome(
            "pass", "RAY_ADDRESS is not set; a run starts a Ray of its own", "no address, or a good one"
        )
    try:
        found = ray_address.resolve(ray_address.AUTO, subject.host)
    except VimeError as e:
        return Outcome("warn", e.message, f"a cluster of {nodes} nodes to give as --address", e.hint)
    used = "" if nodes > 1 else ", which a run takes with --address auto only"
    return Outcome("pass", f"{found}{used}", "no address, or a good one")


def _ports(subject: Subject) -> Outcome:
    place = "/proc/sys/net/ipv4/ip_local_port_range"
    handed = re.fullmatch(r"(\d+)\s+(\d+)", (subject.host.read(place) or "").strip())
    if handed is None:
        return skipped(f"{place} cannot be read")
    first, last = int(handed[1]), int(handed[2])
    used = sum(first <= port <= last for port in in_use(subject.host))
    free = last - first + 1 - used
    return judged(
        free >= _PORTS,
        f"{first} to {last}, {used} in use: {free} free",
        f"{_PORTS} free",
        'sysctl -w net.ipv4.ip_local_port_range="32768 60999", or end what holds them (ss -tan)',
        "warn",
    )


def _loopback(subject: Subject) -> Outcome:
    flags = (subject.host.read("/sys/class/net/lo/flags") or "").strip()
    try:
        up = bool(int(flags, 16) & _IFF_UP)
    except ValueError:
        return skipped("/sys/class/net/lo/flags cannot be read")
    return judged(up, f"lo is {'up' if up else 'down'} (flags {flags})", "lo is up", "ip link set lo up")


def _localhost(subject: Subject) -> Outcome:
    text = subject.host.read("/etc/hosts")
    if text is None:
        return skipped("/etc/hosts cannot be read")
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    addresses = [words[0] for words in lines if "localhost" in words[1:]]
    good = any(address.startswith("127.") or address == "::1" for address in addresses)
    return judged(
        good,
        f"/etc/hosts has localhost as {', '.join(addresses)}" if addresses else "/etc/hosts has no localhost",
        "127.0.0.1 localhost",
        "add the line `127.0.0.1 localhost` to /etc/hosts",
        "warn",
    )
