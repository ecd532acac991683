"""Stands in for torch_npu: NPUs whose memory is host memory that is counted, and whose calls are recorded.

Importing it makes ``torch.npu`` and the device "npu" known, as importing the real one does. What is not
simulated is there by name, so that sources that name it can be imported; calling it is an error.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch

from torch_npu import _device, _hccl, _npu, _reductions, _unknown

__version__ = "2.10.0"


def _install() -> None:
    npu = _unknown.Module("torch.npu")
    vars(npu).update({name: value for name, value in vars(_npu).items() if not name.startswith("__")})
    sys.modules["torch.npu"] = npu
    _device.register(npu)
    _reductions.register()
    _hccl.register()
    _unknown.find_below("torch_npu")
    torch.npu = npu


def __getattr__(name: str) -> ModuleType:
    return _unknown.attribute(__name__, name)


npu = sys.modules.get("torch.npu")
if npu is None:
    _install()
    npu = sys.modules["torch.npu"]
