"""Simulate MindSpeed's adaptor: importing it redirects calls of torch.cuda to torch.npu.

The real one imports ``torch_npu.contrib.transfer_to_npu``, and also replaces parts of Megatron-core. What the
process had imported before is recorded, because the order matters.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
import torch_npu
from torch_npu import _books, _npu

from mindspeed.features_manager import MindSpeedFeaturesManager

NAMES = (
    "_lazy_call",
    "_lazy_init",
    "current_device",
    "current_stream",
    "default_generators",
    "device_count",
    "empty_cache",
    "get_device_properties",
    "get_rng_state",
    "is_available",
    "manual_seed",
    "memory_allocated",
    "set_device",
    "synchronize",
)

for name in NAMES:
    for module in (torch.cuda, torch.cuda.random):
        setattr(module, name, getattr(torch.npu, name))
_type = torch.Tensor.type


def _cuda_type(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    found = _type(tensor, *args, **kwargs)
    return found.replace("torch.npu.", "torch.cuda.") if isinstance(found, str) else found


torch.Tensor.type = _cuda_type
torch.Tensor.cuda = lambda tensor, *args, **kwargs: tensor.to(torch.device("npu", torch.npu.current_device()))
_books.record(
    "mindspeed_adaptor",
    features=[feature.feature_name for feature in MindSpeedFeaturesManager.FEATURES_LIST],
    arguments=sys.argv[1:],
    megatron_loaded=any(module == "megatron" or module.startswith("megatron.core") for module in sys.modules),
    allocator=_npu.ALLOCATOR_CONFIGURATION,
    connections=os.environ.get("CUDA_DEVICE_MAX_CONNECTIONS"),
)
__all__ = ["torch_npu"]
