"""Fakes of an Ascend machine, with which the released sources can be imported and run without one.

Everything that is not hardware is the real thing. Standing in: `torch_npu` and `torch.npu` with one device
whose memory is counted, what is compiled or built, and the model runner.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

# Instead of what is there: it computes on the device.
_INSTEAD = ("vllm_ascend.worker.model_runner_v1",)
# Where it is not there: hardware and compiled parts, what a build writes (in the wheels it is there), and a
# package that vllm-ascend imports and nothing here calls.
_MISSING = ("torch_npu", "acl", "vllm_ascend.vllm_ascend_C", "vllm_ascend._build_info", "scipy")
_CONTENTS: dict[str, dict[str, Any]] = {
    "vllm_ascend._build_info": {"__device_type__": "A2"},  # as in the wheels
    "scipy": {"__version__": "1.15.0"},  # numba asks
}


@dataclass
class Device:
    """One NPU of ``total`` bytes.

    ``torch`` is what the allocator of this process holds of it and ``peak`` the most it held; ``other`` is
    other memory of this process (contexts, HCCL), and ``neighbor`` the memory of other processes.
    """

    total: int
    torch: int = 0
    peak: int = 0
    other: int = 0
    neighbor: int = 0

    @property
    def free(self) -> int:
        return self.total - self.torch - self.other - self.neighbor

    def allocate(self, size: int) -> None:
        self.torch += size
        self.peak = max(self.peak, self.torch)


class Anything(ModuleType):
    """A module in which every name is there."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, MagicMock(name=f"{self.__name__}.{name}"))
        return self.__dict__[name]


class _Finder(MetaPathFinder, Loader):
    """Finds these modules, and every module below them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        known = any(name == one or name.startswith(f"{one}.") for one in self._names)
        return ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Anything(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_CONTENTS.get(module.__name__, {}))


def stand_in(missing: Sequence[str], instead: Sequence[str] = ()) -> None:
    """Provide modules in which every name exists: where there are none, and instead of those that exist."""
    sys.meta_path.insert(0, _Finder(instead))
    sys.meta_path.append(_Finder(missing))


def install(device: Device) -> None:
    """Make this process see ``device`` as its only NPU. To be called before vLLM is imported."""
    import torch

    # vLLM hides a Triton that has no driver, and then these cannot be imported any more.
    import torch._dynamo.variables

    stand_in(_MISSING, _INSTEAD)
    torch.utils.rename_privateuse1_backend("npu")
    npu = Anything("torch.npu")
    npu.is_available = lambda: True
    npu.device_count = lambda: 1
    npu.current_device = lambda: 0
    npu.mem_get_info = lambda device_=None: (device.free, device.total)
    npu.memory_reserved = npu.memory_allocated = lambda device_=None: device.torch
    npu.memory_stats = lambda device_=None: {
        "allocated_bytes.all.peak": device.peak,
        "allocated_bytes.all.current": device.torch,
    }

    def reset_peak(device_: Any = None) -> None:
        device.peak = device.torch

    npu.reset_peak_memory_stats = reset_peak
    torch.npu = sys.modules["torch.npu"] = npu
