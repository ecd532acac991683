"""The feature megatron-basic: parts of Megatron-core.

References are to features_manager/megatron_basic/megatron_basic.py (F),
core/megatron_basic/megatron_basic.py (C) and core/distributed/param_and_grad_buffer.py (D).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch_npu
from megatron.core.distributed.param_and_grad_buffer import _ParamAndGradBucketGroup
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.tensor_parallel import random
from megatron.core.transformer import torch_norm, transformer_block
from torch import Tensor

from mindspeed.patches import replace


def apply() -> None:
    """Replace the norms, the state of the generators and the reduction of gradients."""
    replace(random, "_set_cuda_rng_state", set_rng_state)  # F:56
    replace(gpt_layer_specs, "LNImpl", Norm)  # F:60-63
    replace(torch_norm, "WrappedTorchNorm", Norm)
    replace(transformer_block, "LayerNormImpl", Norm)
    _ParamAndGradBucketGroup.start_grad_sync = start_grad_sync  # F:68
    _ParamAndGradBucketGroup.finish_grad_sync = start_grad_sync  # F:70, D:253


def set_rng_state(state: Tensor, device: int = -1, graph_safe: bool = False) -> None:
    """Set the state of an NPU's generator: C:22."""
    index = torch.npu.current_device() if device == -1 else device
    torch.npu.default_generators[index].set_state(state)


class Norm:
    """Makes the norm of a layer: C:74. A function would not do, Megatron calls only classes of a spec."""

    def __new__(cls, config: Any, hidden_size: int, eps: float = 1e-5) -> torch.nn.Module:
        """Return RMSNorm, which the models that are trained have: C:93-104."""
        assert config.normalization == "RMSNorm"
        return RMSNorm(hidden_size, eps, config)


class RMSNorm(torch.nn.Module):
    """RMSNorm in one kernel: core/fusions/fused_rms_norm.py:7."""

    def __init__(self, size: int, eps: float, config: Any) -> None:
        super().__init__()
        self.eps = eps
        self.weight = torch.nn.Parameter(torch.ones(size))
        self.weight.sequence_parallel = config.sequence_parallel

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return torch_npu.npu_rms_norm(x, self.weight, epsilon=self.eps)[0]


def start_grad_sync(group: _ParamAndGradBucketGroup, force_all_reduce: bool = False) -> None:
    """Sum the gradients of each bucket: D:140-238, without overlap and distributed optimizer.

    Megatron-core 0.16.1 has the second argument, which the commit that MindSpeed was written for lacks.
    """
    for bucket in group.buckets:
        if bucket.gradient_scaling_factor != 1.0:
            bucket.grad_data *= bucket.gradient_scaling_factor
        dist.all_reduce(bucket.grad_data, group=group.data_parallel_group)
