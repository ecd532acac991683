"""Read the Ascend driver: its version files, its device nodes and who may open them, and the container."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from vimectl.doctor.facts import Unavailable
from vimectl.util import npu_devices
from vimectl.util.host import Host

INFO = "/usr/local/Ascend/driver/version.info"
FIRMWARE_INFO = "/usr/local/Ascend/firmware/version.info"

# In a container it has the rules of that container.
DEVICE_RULES = "/sys/fs/cgroup/devices/devices.list"
# By these an engine is recognized.
CONTAINER_READS = ("/.dockerenv", "/run/.containerenv", "/proc/1/environ", "$KUBERNETES_SERVICE_HOST")
_ID = re.compile(r"\d{1,10}")
# The bit of CapEff.
_CAP_DAC_OVERRIDE = 1 << 1

Version = tuple[int, ...]


@dataclass(frozen=True)
class DeviceNode:
    """A device node: path, mode bits, owner and group, the group's name, and the device (``235:0``)."""

    path: str
    mode: int
    owner: int
    group: int
    group_name: str
    device: str

    def allows(self, user: int, groups: frozenset[int]) -> bool:
        """Return True if the user may read and write."""
        # The first class that matches decides, path_resolution(7).
        shift = 6 if self.owner == user else 3 if self.group in groups else 0
        return (self.mode >> shift) & 0o6 == 0o6


def read_fields(host: Host, path: str) -> defaultdict[str, str]:
    """Return the ``name=value`` lines of a version file. A name that it lacks has an empty value.

    ``compatible_version`` lists the branches of CANN (in the driver's file) or of the driver (in CANN's) that
    are supported, ``compatible_version_fw`` the releases of the firmware; see ``accepts``. The branch itself
    (``V100R001C18SPC001B233``) is ``Innerversion`` in the driver's file and ``innerversion`` in CANN's.
    """
    lines = (host.read(path) or "").splitlines()
    pairs = (line.strip().partition("=") for line in lines if "=" in line)
    return defaultdict(str, {name.strip(): value.strip().strip('"') for name, _, value in pairs})


def read_version(host: Host) -> str:
    """Return the release of the installed driver; empty if its version file is absent or has none."""
    found = read_fields(host, INFO)
    return found["package_version"] or found["Version"]


def read_device_nodes(host: Host) -> list[DeviceNode]:
    """Return the device nodes of the NPUs, then those of the driver itself. Raises Unavailable."""
    managers = [path for path in npu_devices.MANAGER_NODES if host.exists(path)]
    nodes = [*npu_devices.device_nodes(host), *managers]
    answer = host.run(["stat", "-L", "-c", "%a %u %g %G %t:%T %n", *nodes], 5)
    if answer.code != 0:
        raise Unavailable("stat does not answer")
    rows = [line.split() for line in answer.stdout.splitlines()]
    return [
        DeviceNode(path, int(mode, 8), int(owner), int(group), name, _device(numbers))
        for mode, owner, group, name, numbers, path in (row for row in rows if len(row) == 6)
    ]


def _device(numbers: str) -> str:
    """Return major and minor number in decimal, which stat(1) prints in hexadecimal."""
    return ":".join(str(int(number, 16)) for number in numbers.split(":"))


def read_forbidden_devices(host: Host) -> list[str]:
    """Return the device nodes that the device cgroup of this process forbids to open, for any user.

    Only cgroup v1 lists its rules (``c 235:* rwm``); where there is no list, none is known to be forbidden.
    """
    rules = [line.split() for line in (host.read(DEVICE_RULES) or "").splitlines()]
    allowed = [rule[1] for rule in rules if len(rule) == 3 and rule[0] in "ac" and {"r", "w"} <= set(rule[2])]
    return [
        node.path
        for node in (read_device_nodes(host) if rules else [])
        if not any(fnmatchcase(node.device, pattern) for pattern in allowed)
    ]


def read_identity(host: Host) -> tuple[int, frozenset[int]]:
    """Return the effective user of this process and its groups, proc(5). Raises Unavailable."""
    lines = (host.read("/proc/self/status") or "").splitlines()
    fields = {name: values.split() for name, _, values in (line.partition(":") for line in lines)}
    users, groups = fields.get("Uid", []), fields.get("Gid", [])
    numbers = (*users[1:2], *groups[1:2], *fields.get("Groups", []))
    if len(users) < 2 or len(groups) < 2 or not all(map(_ID.fullmatch, numbers)):
        raise Unavailable("/proc/self/status has no Uid and Gid")
    user, *own_groups = map(int, numbers)
    return user, frozenset(own_groups)


def ignores_modes(host: Host) -> bool:
    """Return True if this process may open any file: root with CAP_DAC_OVERRIDE, capabilities(7)."""
    user, _ = read_identity(host)
    found = host.search("/proc/self/status", r"^CapEff:\s*([0-9a-fA-F]+)")
    return user == 0 and (found is None or bool(int(found[1], 16) & _CAP_DAC_OVERRIDE))


def read_mounts(host: Host) -> dict[str, str]:
    """Return the files and directories of the driver, each with what is wrong with it (empty: nothing)."""
    return {mount.path: _mount_problem(host, mount) for mount in npu_devices.MOUNTS}


def _mount_problem(host: Host, mount: npu_devices.DriverMount) -> str:
    if not host.exists(mount.path):
        return "absent"
    # Docker creates an empty directory where the host has nothing to mount.
    if not host.is_dir(mount.path):
        return "not a directory" if mount.directory else ""
    empty = not host.names(mount.path)
    if mount.directory and not empty:
        return ""
    return "an empty directory" if empty else "a directory, not a file"


def read_container(host: Host) -> str | None:
    """Return the kind of container that this is (``docker``, ``podman``, ``lxc``, ...), or None."""
    if host.exists("/.dockerenv"):
        return "docker"
    if host.exists("/run/.containerenv"):
        return "podman"
    if "KUBERNETES_SERVICE_HOST" in host.environment:
        return "kubernetes"
    # systemd's container interface: an engine writes its name into the environment of process 1.
    found = host.search("/proc/1/environ", r"(?:^|\0)container=([^\0]+)")
    return found[1] if found else None


def parse_branch(text: str) -> Version:
    """Return the branch of a version: (100, 1, 23) for ``V100R001C23SPC002B212``; empty if it has none."""
    found = re.search(r"V(\d+)R(\d+)C(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def parse_release(text: str) -> Version:
    """Return the leading numbers of a dotted version: (7, 8, 0) for ``7.8.0.rc1``."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def accepts(supported: str, version: Version, parse: Callable[[str], Version]) -> bool:
    """Return True if a list of supported versions has this one: ``[a],[b,c]`` is a, and b to c."""
    for inside in re.findall(r"\[([^\[\]]*)\]", supported):
        first, _, last = inside.partition(",")
        low, high = parse(first.strip()), parse((last or first).strip())
        if version and low and high and low <= version <= high:
            return True
    return False
