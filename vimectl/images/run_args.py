"""How a container is started on this host: devices, the driver's mounts, shared memory, limits."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from vime_runtime.spec.errors import MissingRequirement

from vimectl.stacks.schema import Stack
from vimectl.util import npu_devices
from vimectl.util.host import Host

# Half the memory, as much as a host's own /dev/shm has: it is a bound, and takes nothing until it is used.
_SHM_SHARE = 0.5
_MIB = 1024**2


@dataclass(frozen=True)
class Option:
    """One option of ``docker run`` and podman's, without its dashes, and why it is there."""

    name: str
    value: str
    why: str

    @property
    def text(self) -> str:
        return f"--{self.name}={self.value}"


def options(stack: Stack, host: Host) -> list[Option]:
    """Return the options for a container in which ``stack`` runs on ``host``.

    Raises:
        MissingRequirement: the stack is for NPUs, and the host has none, or its driver is not whole.
    """
    found = [*_npus(host)] if stack.stack.device == "npu" else []
    if memory := _memory(host):
        size = f"{int(memory * _SHM_SHARE) // _MIB}m"
        found.append(Option("shm-size", size, "weights and Ray's objects pass through it; half the memory"))
    found.append(Option("pids-limit", "-1", "Ray's and PyTorch's threads are thousands on many cores"))
    return found


def compose(found: list[Option], image: str) -> str:
    """Return a compose file with one service that has these options."""
    lists = {"device": "devices", "volume": "volumes", "group-add": "group_add"}
    single = {"network": "network_mode", "shm-size": "shm_size", "pids-limit": "pids_limit"}
    lines = ["services:", "  vimectl:", f"    image: {json.dumps(image)}"]
    for name, key in lists.items():
        values = [option.value for option in found if option.name == name]
        lines += [f"    {key}:", *(f"      - {json.dumps(value)}" for value in values)] if values else []
    for option in found:
        if option.name in single:
            value = option.value if option.name == "pids-limit" else json.dumps(option.value)
            lines.append(f"    {single[option.name]}: {value}")
        if option.name == "ulimit":
            lines += ["    ulimits:", f"      {option.value.replace('=', ': ')}"]
    return "\n".join(lines) + "\n"


def _npus(host: Host) -> Iterator[Option]:
    nodes = npu_devices.device_nodes(host)
    if not nodes:
        raise MissingRequirement(
            "this machine has no NPU: no device nodes /dev/davinci*",
            "ask on the host that has the NPUs; a stack for the CPU (cpu-0.32) needs none",
        )
    mounts = [mount for mount in npu_devices.host_files().mounts if host.path(mount.path).exists()]
    lacking = [path for path in npu_devices.manager_nodes() if not host.path(path).exists()]
    lacking += [m.path for m in npu_devices.host_files().mounts if m.needed and m not in mounts]
    if lacking:
        raise MissingRequirement(
            f"the driver of this machine is not whole: {', '.join(lacking)} not found",
            "install the Ascend driver on the host",
        )
    for path in nodes:
        yield Option("device", path, "an NPU")
    for path in npu_devices.manager_nodes():
        yield Option("device", path, "without the driver's manager nodes no NPU can be opened")
    for mount in mounts:
        yield Option("volume", f"{mount.path}:{mount.path}", mount.why)
    if (group := _group(host, nodes[0])) is not None:
        yield Option("group-add", str(group), "the driver gives the devices to this group")
    if len(nodes) > 1:
        yield Option("network", "host", "NPUs find each other by the host's addresses (HCCL)")
    yield Option("ulimit", "memlock=-1", "buffers that a device reads must be locked in memory")


def _group(host: Host, node: str) -> int | None:
    """The group that may use a device node; None when everybody may, or root's own."""
    answer = host.run(["stat", "-L", "-c", "%a %u %g %G %n", node], 5.0)
    if answer.code != 0:
        return None
    mode, _, group, *_ = answer.stdout.split()
    open_to_all = int(mode, 8) & stat.S_IROTH and int(mode, 8) & stat.S_IWOTH
    return None if open_to_all or group == "0" else int(group)


def _memory(host: Host) -> int | None:
    """The machine's memory in bytes, proc_meminfo(5)."""
    for line in (host.read("/proc/meminfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    return None
