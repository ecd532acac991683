"""Ids of machines and devices that are the same in every process.

A bucket's handles are looked up by such an id. The process that fills a buffer and the one that reads it must
derive the same id, also in two containers on one host, and different ids on two hosts. Imports no torch until
it is needed: the driver uses the machine's id.
"""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.spec.boot_id import boot_id
from vime_runtime.spec.device_layout import VISIBLE_DEVICES
from vime_runtime.weight_sync.transport import WeightLocation

if TYPE_CHECKING:
    import torch

DEVICES = Path("/dev")
DEVICE_NODE = re.compile(r"davinci(\d+)")


@cache
def machine_id() -> str:
    """Return an id of the machine, the same for processes that can open each other's files under /proc.

    Buffers are opened by process id, and two containers on one host may number processes differently. So the
    PID namespace (pid_namespaces(7)) is part of the id.
    """
    return f"host {boot_id()} {os.readlink('/proc/self/ns/pid')}"


def device_uuid(device: torch.device) -> str:
    """Return an id of the physical device: of its host, its number there, and its uuid.

    The visible devices map the index in this process to the index in this container, and the container's
    device nodes, in order, map that to a device number (makedev(3)). The device number is the same in every
    container, while index and name may differ. (CANN, "Relationships Between the User Device ID, Logical
    Device ID, and Physical Device ID".) Without device nodes the index in the container is used.

    The uuid alone is not enough. It is zero where the driver has none (``initDeviceProperty`` in torch_npu's
    csrc/npu/Module.cpp, 2.10.0 to 2.13.0), and two dies of a package may have the same.
    """
    import torch

    module = torch.get_device_module(device)
    index = module.current_device() if device.index is None else device.index
    uuid = getattr(module.get_device_properties(index), "uuid", "")
    visible = os.environ.get(VISIBLE_DEVICES)
    if visible:
        index = int(visible.split(",")[index])
    numbers = _device_numbers()
    return f"npu {boot_id()} {numbers[index] if index < len(numbers) else index} {uuid}".rstrip()


def location_of(device: torch.device) -> WeightLocation:
    """Return where weights on ``device`` are: the machine, and the device unless it is the CPU."""
    return WeightLocation(machine_id(), None if device.type == "cpu" else device_uuid(device))


def _device_numbers() -> list[str]:
    """Return the device number of each chip of this container, in the driver's order."""
    found = {}
    for path in DEVICES.glob("davinci*"):
        if match := DEVICE_NODE.fullmatch(path.name):
            number = path.stat().st_rdev
            found[int(match[1])] = f"{os.major(number)}:{os.minor(number)}"
    return [number for _, number in sorted(found.items())]
