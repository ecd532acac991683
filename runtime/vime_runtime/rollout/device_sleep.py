"""What vLLM's sleep mode on a device holds, from the books of its allocator.

vLLM's ``CuMemAllocator`` and vllm-ascend's ``CaMemAllocator`` keep them alike: for every allocation its
tag and a handle whose second entry is its size in bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

from vime_runtime.memory.region import Residency

ALLOCATORS = {
    "cuda": ("vllm.device_allocator.cumem", "CuMemAllocator"),
    "npu": ("vllm_ascend.device_allocator.camem", "CaMemAllocator"),
}


def residency(asleep: Collection[str]) -> Residency:
    """Bytes of weights and KV cache of this process; those of the tags ``asleep`` have no memory."""
    allocations = _allocator().pointer_to_data.values()
    resident = sum(data.handle[1] for data in allocations if data.tag not in asleep)
    return Residency(sum(data.handle[1] for data in allocations), resident)


def _allocator() -> Any:
    from vllm.platforms import current_platform

    module, name = ALLOCATORS[current_platform.device_type]
    return getattr(importlib.import_module(module), name).get_instance()
