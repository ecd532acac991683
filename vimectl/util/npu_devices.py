"""What a host has for its NPUs: device nodes, and the parts of the driver that a container is given."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from vime_runtime.spec.strict import Strict

from vimectl.util import toml
from vimectl.util.host import Host

_NODE = re.compile(r"davinci(\d+)$")


class Mount(Strict):
    """A file or folder of the driver. Without one that is ``needed`` no process can use an NPU."""

    path: str
    why: str
    needed: bool = False


class NpuHost(Strict):
    """The schema of ``npu_host.toml``. ``managers`` are names in /dev."""

    managers: list[str]
    mounts: list[Mount]


@cache
def facts() -> NpuHost:
    """Return what is known of hosts with NPUs."""
    return toml.load(NpuHost, Path(__file__).with_suffix(".toml"))


def nodes(host: Host) -> list[str]:
    """Return the device nodes of the NPUs, in the order of their numbers."""
    found = [path.name for path in host.path("/dev").glob("davinci*") if _NODE.match(path.name)]
    return [f"/dev/{name}" for name in sorted(found, key=lambda name: int(name.removeprefix("davinci")))]


def managers() -> list[str]:
    """Return the device nodes of the driver itself."""
    return [f"/dev/{name}" for name in facts().managers]
