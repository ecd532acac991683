"""The one Triton kernel that vllm-ascend's worker calls on every chip: vLLM's, for the slots of new tokens.

vLLM replaces it for a CPU in the same way (vllm/v1/worker/cpu_model_runner.py:65), by a C++ function.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


class Launcher:
    """A kernel that is started as ``kernel[grid](...)``."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return compute_slot_mapping


def compute_slot_mapping(
    num_tokens: int,
    max_num_tokens: int,
    query_start_loc: Tensor,
    positions: Tensor,
    block_table: Tensor,
    block_table_stride: int,
    block_size: int,
    slot_mapping: Tensor,
    *,
    TOTAL_CP_WORLD_SIZE: int,
    PAD_ID: int,
    **unused: int,
) -> None:
    """Write the slot of each token, and ``PAD_ID`` behind them (vllm/v1/worker/block_table.py:326-380)."""
    if TOTAL_CP_WORLD_SIZE != 1:
        raise NotImplementedError("context parallelism has no stand-in")
    slot_mapping[num_tokens:max_num_tokens] = PAD_ID
    for request, (start, stop) in enumerate(pairwise(query_start_loc.tolist())):
        position = positions[start:stop]
        block = block_table[request][torch.div(position, block_size, rounding_mode="floor")]
        slot_mapping[start:stop] = block * block_size + position % block_size


def install() -> None:
    """Replace the kernel, before vllm-ascend imports it."""
    from vllm.v1.worker import block_table

    block_table._compute_slot_mapping_kernel = Launcher()
