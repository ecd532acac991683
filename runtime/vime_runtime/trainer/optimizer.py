"""Megatron-core's gradient buffer and AdamW, with every byte of their state allocated when built."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from torch import Tensor

from vime_runtime.spec.recipe import OptimizerTable


def learning_rate(settings: OptimizerTable, step: int, steps: int) -> float:
    """The rate at ``step`` (from 1) of ``steps``: linear warm-up, then ``decay`` down to ``min_lr``."""
    if step <= settings.warmup_steps:
        return settings.lr * step / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(steps - settings.warmup_steps, 1)
    remaining = {
        "constant": 1.0,
        "linear": 1 - done,
        "cosine": (1 + math.cos(math.pi * done)) / 2,
    }[settings.decay]
    return settings.min_lr + (settings.lr - settings.min_lr) * remaining


class Optimizer:
    """AdamW on a model whose parameters are fp32, or bf16 with fp32 master weights.

    The gradients of all backwards since the last step add up in fp32. They are summed, not averaged,
    over the data-parallel ranks: the loss must already be divided by the tokens of all ranks.
    Matrices decay, vectors do not.
    """

    def __init__(self, model: GPTModel, settings: OptimizerTable) -> None:
        """Allocate gradients, master weights and moments; ``model`` already holds its weights."""
        dtype = model.config.params_dtype
        self._ddp = DistributedDataParallel(
            model.config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), model
        )
        self._optimizer = get_megatron_optimizer(
            OptimizerConfig(
                lr=settings.lr,
                min_lr=settings.min_lr,
                weight_decay=settings.weight_decay,
                adam_beta1=settings.beta1,
                adam_beta2=settings.beta2,
                adam_eps=settings.eps,
                # Zero turns clipping off, but Megatron would not compute the norm then.
                clip_grad=settings.clip_grad or math.inf,
                bf16=dtype is torch.bfloat16,
                params_dtype=dtype,
            ),
            [self._ddp],
            use_gloo_process_groups=False,
        )
        for group in self._optimizer.param_groups:
            # Megatron leaves it to its scheduler to apply the multiplier, which is 0 for vectors.
            group["weight_decay"] = settings.weight_decay * group["wd_mult"]
            if group["params"][0].device.type == "cpu":
                # One pass over each parameter in place of ten; Megatron has no setting for it.
                group["fused"] = True
        for optimizer in self._optimizer.chained_optimizers:
            _allocate_moments(optimizer.optimizer)

    def step(self, rate: float) -> float:
        """Reduce, clip, update, and clear the gradients. A collective over all ranks.

        Returns:
            the global norm of the gradient before clipping.

        Raises:
            FloatingPointError: the gradient is not finite.
        """
        finalize_model_grads([self._ddp])
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        _, norm, _ = self._optimizer.step()
        if not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {norm}")
        self._ddp.zero_grad_buffer()
        # In fp32 the optimizer has made .grad an alias of the buffer: backward would add to it twice.
        self._optimizer.zero_grad()
        return norm

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """The live tensors that outlast a step, by name: parameters, master weights, moments, step counts.

        Between steps the gradients are zero, and the rate is computed anew at each step. In fp32 the
        parameters are their own master weights and come under one name.
        """
        names = {}
        for name, parameter in self._ddp.module.named_parameters():
            yield f"model/{name}", parameter.detach()
            names[getattr(parameter, "main_param", parameter)] = name
            if hasattr(parameter, "main_param"):
                yield f"master/{name}", parameter.main_param.detach()
        for optimizer in self._optimizer.chained_optimizers:
            for parameter, moments in optimizer.optimizer.state.items():
                for kind, tensor in moments.items():
                    yield f"{kind}/{names[parameter]}", tensor
        for number, group in enumerate(self._optimizer.param_groups):
            if "step" in group:
                yield f"step/group {number}", group["step"]


def _allocate_moments(adam: torch.optim.Optimizer) -> None:
    """Do now what AdamW does at its first step, so that it happens inside the training region.

    torch's own counts the steps of each parameter; the fused one that MindSpeed brings for NPUs
    (``mindspeed/core/optimizer/adamw.py``) counts those of a group, in the group.
    """
    counts_groups = not isinstance(adam, torch.optim.AdamW)
    for group in adam.param_groups:
        if counts_groups:
            group["step"] = torch.zeros((), dtype=torch.int64, device=group["params"][0].device)
        for param in group["params"]:
            count = {} if counts_groups else {"step": torch.zeros((), dtype=torch.float32, device="cpu")}
            moments = {"exp_avg": torch.zeros_like(param), "exp_avg_sq": torch.zeros_like(param)}
            adam.state[param] = count | moments
