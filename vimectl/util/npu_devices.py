"""The NPU device nodes of a host, and the driver files that a container needs from it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from vime_runtime.spec.strict import Strict

from vimectl.util import toml
from vimectl.util.host import Host

_NODE = re.compile(r"davinci(\d+)$")


class DriverMount(Strict):
    """A file or directory of the driver. No process can use an NPU when a ``needed`` one is missing."""

    path: str
    why: str
    needed: bool = False


class NpuHostFiles(Strict):
    """The schema of ``npu_devices.toml``. ``managers`` are names in /dev."""

    managers: list[str]
    mounts: list[DriverMount]


@cache
def host_files() -> NpuHostFiles:
    """Return the driver files of a host with NPUs."""
    return toml.load(NpuHostFiles, Path(__file__).with_suffix(".toml"))


def device_nodes(host: Host) -> list[str]:
    """Return the paths of the NPU device nodes, in numeric order."""
    found = [path.name for path in host.path("/dev").glob("davinci*") if _NODE.match(path.name)]
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name.removeprefix("davinci")))]


def manager_nodes() -> list[str]:
    """Return the paths of the driver's own device nodes."""
    return [f"/dev/{name}" for name in host_files().managers]
