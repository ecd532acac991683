"""Read the Ascend driver: its version files, its device nodes and who may open them, and the container."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vimectl.doctor.facts import Unavailable
from vimectl.util import npu_devices
from vimectl.util.host import Host

DRIVER_INFO = "/usr/local/Ascend/driver/version.info"
FIRMWARE_INFO = "/usr/local/Ascend/firmware/version.info"
_BRANCH = re.compile(r"V(\d+)R(\d+)C(\d+)")

Branch = tuple[int, ...]


@dataclass(frozen=True)
class Driver:
    """The version files of driver and firmware. Empty: the file or the line is absent.

    ``branch`` is the driver's branch (``V100R001C18SPC001B233``), ``cann_branches`` the branches of CANN and
    ``firmware_releases`` the releases of the firmware that it supports, both as written in the file.
    """

    version: str
    branch: str
    cann_branches: str
    firmware_releases: str
    firmware: str


@dataclass(frozen=True)
class DeviceNode:
    """A device node: its path, mode bits, and owner and group by number and name."""

    path: str
    mode: int
    owner: int
    group: int
    group_name: str

    def allows(self, user: int, groups: frozenset[int]) -> bool:
        """Return True if the user may read and write."""
        # The first class that matches decides, path_resolution(7).
        shift = 6 if self.owner == user else 3 if self.group in groups else 0
        return user == 0 or (self.mode >> shift) & 0o6 == 0o6


@dataclass(frozen=True)
class DeviceAccess:
    """The device nodes, and the effective user and groups of this process."""

    nodes: tuple[DeviceNode, ...]
    user: int
    groups: frozenset[int]


def read_fields(host: Host, path: str) -> dict[str, str]:
    """Return the ``name=value`` lines of a version file; empty if it is absent or has none."""
    lines = (host.read(path) or "").splitlines()
    pairs = (line.strip().partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip().strip('"') for name, _, value in pairs}


def read_driver(host: Host) -> Driver:
    """Read the version files of driver and firmware."""
    found = read_fields(host, DRIVER_INFO)
    return Driver(
        version=found.get("package_version") or found.get("Version", ""),
        branch=found.get("Innerversion", ""),
        cann_branches=found.get("compatible_version", ""),
        firmware_releases=found.get("compatible_version_fw", ""),
        firmware=read_fields(host, FIRMWARE_INFO).get("Version", ""),
    )


def read_access(host: Host) -> DeviceAccess:
    """Read the modes of the device nodes and the identity of this process.

    Raises:
        Unavailable: stat fails or /proc/self/status has no identity.
    """
    nodes = npu_devices.device_nodes(host)
    managers = [path for path in npu_devices.manager_nodes() if host.path(path).exists()]
    answer = host.run(["stat", "-L", "-c", "%a %u %g %G %n", *nodes, *managers], 5)
    if answer.code != 0:
        raise Unavailable("stat does not answer")
    rows = [line.split() for line in answer.stdout.splitlines()]
    user, groups = _identity(host)
    return DeviceAccess(
        tuple(
            DeviceNode(path, int(mode, 8), int(owner), int(group), name)
            for mode, owner, group, name, path in (row for row in rows if len(row) == 5)
        ),
        user,
        groups,
    )


def _identity(host: Host) -> tuple[int, frozenset[int]]:
    """Return the effective user of this process and its groups, proc(5)."""
    lines = (host.read("/proc/self/status") or "").splitlines()
    fields = {name: values.split() for name, _, values in (line.partition(":") for line in lines)}
    users, groups = fields.get("Uid", []), fields.get("Gid", [])
    if len(users) < 2 or len(groups) < 2:
        raise Unavailable("/proc/self/status has no Uid")
    return int(users[1]), frozenset(map(int, (groups[1], *fields.get("Groups", []))))


def read_container(host: Host) -> str | None:
    """Return the kind of container that this is (``docker``, ``podman``, ``lxc``, ...), or None."""
    if host.path("/.dockerenv").exists():
        return "docker"
    if host.path("/run/.containerenv").exists():
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in host.environment:
        return "kubernetes"
    # systemd's container interface: an engine writes its name into the environment of process 1.
    for line in (host.read("/proc/1/environ") or "").split("\0"):
        name, _, value = line.partition("=")
        if name == "container" and value:
            return value
    return None


def parse_branch(text: str) -> Branch | None:
    """Return the branch of a version: (100, 1, 23) for ``V100R001C23SPC002B212``; None if it has none."""
    found = _BRANCH.search(text)
    return tuple(map(int, found.groups())) if found else None


def parse_ranges(text: str) -> list[tuple[str, str]]:
    """Return the ranges of a ``compatible_version`` line: ``[a],[b,c]`` is a to a and b to c."""
    found = []
    for inside in re.findall(r"\[([^\[\]]*)\]", text):
        first, _, last = (part.strip() for part in inside.partition(","))
        found.append((first, last or first))
    return found


def accepts_branch(text: str, version: str) -> bool:
    """Return True if a ``compatible_version`` line of branches includes the branch of ``version``."""
    wanted = parse_branch(version)
    for first, last in parse_ranges(text):
        low, high = parse_branch(first), parse_branch(last)
        if wanted and low and high and low <= wanted <= high:
            return True
    return False


def leading_numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a dotted version: (7, 8, 0) for ``7.8.0.rc1``."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
