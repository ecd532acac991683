"""Simulate torch_npu: device memory is host memory, counted by chip, and calls are recorded.

Importing it makes ``torch.npu`` and the device "npu" known, as importing the real one does. What is not
simulated is there by name, so that sources that name it can be imported; calling it is an error.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import simulated_ascend
import torch

from torch_npu import _books, _device, _hccl, _npu, _reductions, _unknown

__version__ = "2.10.0"


def _install() -> None:
    npu = _unknown.Module("torch.npu")
    vars(npu).update({name: value for name, value in vars(_npu).items() if not name.startswith("__")})
    sys.modules["torch.npu"] = npu
    _device.register(npu)
    _reductions.register()
    _hccl.register()
    _unknown.find(("torch_npu", *simulated_ascend.MISSING), simulated_ascend.INSTEAD)
    torch.npu = npu


def npu_fusion_attention(*args: Any, **settings: Any) -> Any:
    """The implementation that other tests compare with Megatron's attention."""
    from harness.npu.fusion_operator import npu_fusion_attention as operator

    _books.record("npu_fusion_attention", chip=_npu.chip(), layout=args[4])
    return operator(*args, **settings)


def _autoload() -> None:
    """Called by torch at the end of its import; being imported is enough."""


def __getattr__(name: str) -> ModuleType:
    return _unknown.attribute(__name__, name)


npu = sys.modules.get("torch.npu")
if npu is None:
    _install()
    npu = sys.modules["torch.npu"]
