"""Megatron-core's gradient buffer and AdamW, with all of their state allocated at the start.

The state is saved in torch's format, which needs no second copy of the state in memory: ``torch.save`` writes
one tensor after the other, unlike the writer of safetensors, and ``torch.load`` has ``mmap``. With
``weights_only`` it runs no code from the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from torch import Tensor

from vime_runtime.memory.region import OffloadableRegion
from vime_runtime.spec.atomic_io import FileRecord, write_file
from vime_runtime.spec.recipe import OptimizerTable


class Optimizer:
    """AdamW on a model with fp32 parameters, or with bf16 parameters and fp32 master weights.

    Gradients are accumulated in fp32 over all backward passes since the last step. Over data-parallel ranks
    they are summed, not averaged: the loss must already be divided by the tokens of all ranks. Weight decay
    applies to matrices, not to vectors.

    With ``distributed`` each data-parallel rank has master weights and moments of its shard only (Rajbhandari
    et al., ZeRO, arXiv 1910.02054, stage 1). A shard is a range of the values of all parameters, so of one
    parameter a rank has a range, all or nothing.
    """

    def __init__(
        self, model: GPTModel, settings: OptimizerTable, region: OffloadableRegion, distributed: bool = False
    ) -> None:
        """Allocate gradients, master weights and moments in ``region``; ``model`` already has its weights.

        With ``distributed`` the weights are copied into the region, and their old memory is freed.
        """
        dtype = model.config.params_dtype
        self._distributed = distributed
        with region.allocating_zeros():
            self._ddp = DistributedDataParallel(
                model.config,
                DistributedDataParallelConfig(
                    grad_reduce_in_fp32=True, use_distributed_optimizer=distributed
                ),
                model,
            )
        if distributed:
            with region.allocating():
                for buffer in self._buffers():
                    _move_parameters(buffer)
        self._optimizer = get_megatron_optimizer(
            OptimizerConfig(
                lr=settings.lr,
                min_lr=settings.min_lr,
                weight_decay=settings.weight_decay,
                adam_beta1=settings.beta1,
                adam_beta2=settings.beta2,
                adam_eps=settings.eps,
                # With zero, which disables clipping, Megatron does not compute the norm.
                clip_grad=settings.clip_grad or math.inf,
                bf16=dtype is torch.bfloat16,
                params_dtype=dtype,
                use_distributed_optimizer=distributed,
            ),
            [self._ddp],
            use_gloo_process_groups=False,
        )
        device = next(model.parameters()).device
        for group in self._optimizer.param_groups:
            # Megatron's scheduler, which is not used here, applies the multiplier; it is 0 for vectors.
            group["weight_decay"] = settings.weight_decay * group["wd_mult"]
            if device.type == "cpu":
                # One pass over each parameter instead of ten; Megatron has no setting for it.
                group["fused"] = True
        with region.allocating():
            for _, parameter, master in self._shards():
                # Megatron makes a second copy in bf16 first, so it did this outside the region.
                if master is not parameter:
                    master.data = master.clone()
            for optimizer in self._optimizer.chained_optimizers:
                _allocate_moments(optimizer.optimizer, device)

    def step(self, rate: float) -> float:
        """Reduce and clip the gradients, update the weights, clear the gradients. A collective.

        Returns:
            the global norm of the gradient before clipping. If it is not finite, the weights are lost.
        """
        finalize_model_grads([self._ddp])
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        norm: float
        _, norm, _ = self._optimizer.step()
        self._ddp.zero_grad_buffer()
        # In fp32 the optimizer has made .grad an alias of the buffer: backward would add to it twice.
        self._optimizer.zero_grad()
        return norm

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the live tensors of this rank's state: parameters, master weights, moments, step counts.

        Between steps the gradients are zero, and the rate is computed at each step. In fp32 the parameters
        are their own master weights and have one name. A distributed optimizer has ranges of them, [values].
        """
        names = {}
        for name, parameter, master in self._shards():
            yield f"model/{name}", parameter.detach()
            names[master] = name
            if master is not parameter:
                yield f"master/{name}", master.detach()
        for optimizer in self._optimizer.chained_optimizers:
            for parameter, moments in optimizer.optimizer.state.items():
                for kind, tensor in moments.items():
                    yield f"{kind}/{names[parameter]}", tensor
        for number, group in enumerate(self._optimizer.param_groups):
            if "step" in group:
                yield f"step/group {number}", group["step"]

    def gradients(self) -> list[Tensor]:
        """Return the gradients' buffers, which are zero between steps; the parameters have views of them."""
        return [buffer.grad_data for buffer in self._buffers()]

    def save(self, path: Path) -> FileRecord:
        """Write the state to a file and return its size and digest. Raises OSError with the path."""
        return write_file(path, lambda file: torch.save(dict(self.state()), file))

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Copy the state from a file into the live tensors, whose addresses do not change.

        Raises:
            ValueError: the file is of another model or optimizer; nothing was copied.
        """
        live = dict(self.state())
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if stored.keys() != live.keys():
            differing = sorted(stored.keys() ^ live.keys())
            raise ValueError(
                f"{path} is of another model: {differing[0]} and {len(differing) - 1} more differ"
            )
        for name, tensor in live.items():
            found, expected = (stored[name].dtype, stored[name].shape), (tensor.dtype, tensor.shape)
            if found != expected:
                raise ValueError(f"{path}: {name} is {found[0]} {list(found[1])}, expected {expected}")
        for name, tensor in live.items():
            tensor.copy_(stored[name])
        if self._distributed:
            self._ddp.start_param_sync()  # the other ranks have the rest of the parameters

    def _shards(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield name, parameter and master weights of what this rank updates; in fp32 both are the same."""
        if not self._distributed:
            for name, parameter in self._ddp.module.named_parameters():
                yield name, parameter, getattr(parameter, "main_param", parameter)
            return
        names = {parameter: name for name, parameter in self._ddp.module.named_parameters()}
        for optimizer in self._optimizer.chained_optimizers:
            for whole, shards, masters in (
                (
                    optimizer.model_float16_groups,
                    optimizer.shard_float16_groups,
                    optimizer.shard_fp32_from_float16_groups,
                ),
                (optimizer.model_fp32_groups, optimizer.shard_fp32_groups, optimizer.shard_fp32_groups),
            ):
                for group in zip(whole, shards, masters, strict=True):
                    for parameter, shard, master in zip(*group, strict=True):
                        yield names[parameter], shard, master

    def _buffers(self) -> list[Any]:
        return [*self._ddp.buffers, *self._ddp.expert_parallel_buffers]


def _move_parameters(buffer: Any) -> None:
    """Allocate the parameters of one of Megatron's buffers again, as views of one tensor.

    Megatron allocates them with the gradients, whose memory is not kept while the trainer is offloaded.
    """
    buffer.param_data = buffer.param_data.clone()
    for bucket in buffer.buckets:
        bucket.param_data = buffer.param_data[bucket.offset : bucket.offset + bucket.param_data.numel()]
    for parameter, (start, stop, _) in buffer.param_index_map.items():
        parameter.data = buffer.param_data[start:stop].view(parameter.shape)


def _allocate_moments(adam: torch.optim.Optimizer, device: torch.device) -> None:
    """Allocate the moments and step counts of AdamW in the training region, before its first step does.

    torch's AdamW counts the steps of each parameter. The fused one of MindSpeed for NPUs
    (``mindspeed/core/optimizer/adamw.py``) counts those of a group, in the group.
    """
    counts_in_groups = not isinstance(adam, torch.optim.AdamW)
    for group in adam.param_groups:
        if counts_in_groups:
            group["step"] = torch.zeros((), dtype=torch.int64, device=device)
        for param in group["params"]:
            count = {} if counts_in_groups else {"step": torch.zeros((), dtype=torch.float32, device="cpu")}
            moments = {"exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}
            adam.state[param] = count | moments
