"""What tells one machine from another and one chip from another, the same in every process that asks.

A handle is found by it: the process that fills a buffer and the one that reads it must come to the same
answer, also from two containers on one host, and never to the same one on two hosts.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import torch

DEVICES = Path("/dev")
NODE = re.compile(r"davinci(\d+)")


@cache
def boot_id() -> str:
    """One boot of one kernel (random(4)): containers on a host have it in common, hosts do not.

    Not the address or the name of the host, which a container may have of its own.
    """
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@cache
def machine_id() -> str:
    """One machine, for processes that can open each other's files under /proc.

    Two containers on one host may not have the process ids in common, by which a buffer is found: so the
    namespace of process ids (pid_namespaces(7)) belongs to it.
    """
    return f"host {boot_id()} {os.readlink('/proc/self/ns/pid')}"


def chip_id(device: torch.device) -> str:
    """One physical device.

    An NPU's properties may have no uuid. There the index in this process is looked up among the visible
    devices, which gives the index in this container, and that among the device nodes of the container:
    they are in order, and have the same device number (makedev(3)) in every container, whatever the index
    or the name there. (CANN, "Relationships Between the User Device ID, Logical Device ID, and Physical
    Device ID".) Without device nodes the index in the container stands for the chip.
    """
    module = torch.get_device_module(device)
    index = module.current_device() if device.index is None else device.index
    uuid = str(getattr(module.get_device_properties(index), "uuid", None) or "")
    if uuid.strip("0-"):
        return uuid
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if visible:
        index = int(visible.split(",")[index])
    nodes = _device_numbers()
    return f"npu {boot_id()} {nodes[index] if index < len(nodes) else index}"


def _device_numbers() -> list[str]:
    """The device number of each chip of this container, in the order in which the driver counts them."""
    found = {}
    for path in DEVICES.glob("davinci*"):
        if match := NODE.fullmatch(path.name):
            number = path.stat().st_rdev
            found[int(match[1])] = f"{os.major(number)}:{os.minor(number)}"
    return [number for _, number in sorted(found.items())]
