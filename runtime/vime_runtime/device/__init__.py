"""The devices the runtime can train on, behind one protocol."""

from __future__ import annotations

from vime_runtime.device.base import Device
from vime_runtime.device.cpu import Cpu
from vime_runtime.device.cuda import Cuda
from vime_runtime.device.npu import Npu

_DEVICES: dict[str, type[Device]] = {"cpu": Cpu, "cuda": Cuda, "npu": Npu}


def get(name: str) -> Device:
    """The device called ``cpu``, ``npu`` or ``cuda``. Raises KeyError for any other name."""
    return _DEVICES[name]()
