"""Ids of machines and devices that are the same in every process.

A handle is found by such an id. The process that fills a buffer and the one that reads it must derive the
same id, also from two containers on one host, and different ids on two hosts.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import torch

DEVICES = Path("/dev")
DEVICE_NODE = re.compile(r"davinci(\d+)")


@cache
def boot_id() -> str:
    """Return the id of this boot of the kernel (random(4)), which containers on a host share.

    Address and name of the host do not do: a container may have its own.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@cache
def machine_id() -> str:
    """Return an id of the machine, the same for processes that can open each other's files under /proc.

    Buffers are found by process id, and two containers on one host may number processes differently: so the
    namespace of process ids (pid_namespaces(7)) is part of it.
    """
    return f"host {boot_id()} {os.readlink('/proc/self/ns/pid')}"


def device_uuid(device: torch.device) -> str:
    """Return an id of the physical device.

    An NPU's properties may have no uuid. Then the index in this process is looked up among the visible
    devices, which gives the index in this container, and that among the container's device nodes: these are
    in order, and have the same device number (makedev(3)) in every container, whatever index and name are
    there. (CANN, "Relationships Between the User Device ID, Logical Device ID, and Physical Device ID".)
    Without device nodes the index in the container is used.
    """
    module = torch.get_device_module(device)
    index = module.current_device() if device.index is None else device.index
    uuid = str(getattr(module.get_device_properties(index), "uuid", None) or "")
    if uuid.strip("0-"):
        return uuid
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if visible:
        index = int(visible.split(",")[index])
    numbers = _device_numbers()
    return f"npu {boot_id()} {numbers[index] if index < len(numbers) else index}"


def _device_numbers() -> list[str]:
    """Return the device number of each chip of this container, in the driver's order."""
    found = {}
    for path in DEVICES.glob("davinci*"):
        if match := DEVICE_NODE.fullmatch(path.name):
            number = path.stat().st_rdev
            found[int(match[1])] = f"{os.major(number)}:{os.minor(number)}"
    return [number for _, number in sorted(found.items())]
