"""The feature megatron-basic: parts of Megatron-core.

References are to features_manager/megatron_basic/megatron_basic.py (F),
core/megatron_basic/megatron_basic.py (C) and core/distributed/param_and_grad_buffer.py (D).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch_npu
from megatron.core.distributed.param_and_grad_buffer import _ParamAndGradBucketGroup, shard_buffer
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
    _ParamAndGradBucketGroup.start_param_sync = start_param_sync  # F:66


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
    """Sum the gradients of each bucket, over the whole of it or for the own shard: D:140-238, not overlapped.

    Megatron-core 0.16.1 has the second argument, which the commit that MindSpeed was written for lacks.
    """
    for bucket in group.buckets:
        if bucket.gradient_scaling_factor != 1.0:
            bucket.grad_data *= bucket.gradient_scaling_factor
        if group.ddp_config.use_distributed_optimizer:
            ranks = group.intra_distributed_optimizer_instance_group
            own = shard_buffer(bucket.grad_data, ranks.size())[ranks.rank()]
            dist.reduce_scatter_tensor(own, bucket.grad_data, group=ranks)
        else:
            dist.all_reduce(bucket.grad_data, group=group.data_parallel_group)


def start_param_sync(group: _ParamAndGradBucketGroup, force_sync: bool = False) -> None:
    """Gather the parameters of each bucket from the ranks' shards: D:54-95, not overlapped.

    Without ``_coalescing_manager``, which torch_npu does not have.
    """
    ranks = group.intra_distributed_optimizer_instance_group
    for bucket in group.buckets:
        own = shard_buffer(bucket.param_data, ranks.size())[ranks.rank()]
        dist.all_gather_into_tensor(bucket.param_data, own, group=ranks)
