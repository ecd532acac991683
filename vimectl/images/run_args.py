"""The options to start a container on this host: devices, driver mounts, shared memory, limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from vime_runtime.spec.errors import MissingRequirement

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.driver import read_device_nodes
from vimectl.doctor.facts.limits import read_meminfo
from vimectl.stacks.schema import Stack
from vimectl.util import npu_devices
from vimectl.util.host import Host

# Half the memory, as for a host's /dev/shm. It is an upper limit; unused shared memory costs nothing.
_SHM_SHARE = 0.5
_MIB = 1024**2


@dataclass(frozen=True)
class RunOption:
    """One option of ``docker run`` and ``podman run`` without its dashes, and the reason for it."""

    name: str
    value: str
    why: str

    @property
    def text(self) -> str:
        return f"--{self.name}={self.value}"


def run_options(stack: Stack, host: Host) -> list[RunOption]:
    """Return the options for a container in which ``stack`` runs on ``host``.

    Raises:
        MissingRequirement: the stack is for NPUs, and the host has none, or its driver is incomplete.
    """
    found = [*_npus(host)] if stack.stack.device == "npu" else []
    with suppress(Unavailable):
        size = f"{int(read_meminfo(host, 'MemTotal') * _SHM_SHARE) // _MIB}m"
        found.append(RunOption("shm-size", size, "for weights and Ray's objects; half the memory"))
    found.append(RunOption("pids-limit", "-1", "Ray and PyTorch start thousands of threads on many cores"))
    return found


def compose(found: list[RunOption], image: str) -> str:
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


def _npus(host: Host) -> Iterator[RunOption]:
    nodes = npu_devices.device_nodes(host)
    if not nodes:
        raise MissingRequirement(
            "this machine has no NPU: no device nodes /dev/davinci*",
            "run this on the host with the NPUs; a CPU stack (cpu-0.32) needs none",
        )
    mounts = [mount for mount in npu_devices.MOUNTS if host.exists(mount.path)]
    missing = [path for path in npu_devices.MANAGER_NODES if not host.exists(path)]
    missing += [m.path for m in npu_devices.MOUNTS if m.needed and m not in mounts]
    if missing:
        raise MissingRequirement(
            f"the driver of this machine is incomplete: {', '.join(missing)} not found",
            "install the Ascend driver on the host",
        )
    for path in nodes:
        yield RunOption("device", path, "an NPU")
    for path in npu_devices.MANAGER_NODES:
        yield RunOption("device", path, "a manager node of the driver, needed to open an NPU")
    for mount in mounts:
        yield RunOption("volume", f"{mount.path}:{mount.path}", mount.why)
    if (group := _group(host)) is not None:
        yield RunOption("group-add", str(group), "the group of the device nodes")
    if len(nodes) > 1:
        yield RunOption("network", "host", "HCCL uses the host's addresses")
    yield RunOption("ulimit", "memlock=-1", "buffers for device access must be locked in memory")


def _group(host: Host) -> int | None:
    """Return the group of the device nodes; None if unknown, root's, or not needed to use them."""
    try:
        node = read_device_nodes(host)[0]
    except Unavailable:
        return None
    return None if node.mode & 0o6 == 0o6 or node.group == 0 else node.group
