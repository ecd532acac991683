"""Log-probabilities of tokens and entropies of their distributions, from logits that are split over ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def token_logprobs(
    logits: Tensor, targets: Tensor, temperature: float, vocab_size: int, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target and the entropy of its distribution, in nats, float32.

    The full logits never exist on one rank: each rank computes on its own columns, and three numbers per
    token are reduced.

    Args:
        logits: [N, local columns], any float dtype; columns beyond ``vocab_size`` are padding.
        targets: int64 [N], token ids.
        temperature: the logits are divided by it, as in the rollout's sampler.
        vocab_size: number of tokens of the model, without padding.
        group: the tensor-parallel group.

    Returns:
        log-probabilities [N], differentiable, and entropies [N], not differentiable; equal on all ranks.
    """
    first = group.rank() * logits.shape[-1]
    own = logits[:, : max(vocab_size - first, 0)]
    scaled = own.float() / temperature
    result: tuple[Tensor, Tensor] = _TokenLogprobs.apply(scaled, targets, first, group)  # type: ignore[no-untyped-call]
    return result


class _TokenLogprobs(torch.autograd.Function):
    """log p(y) = z_y - log sum exp(z); entropy = log sum exp(z) - sum p z."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, first: int, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor]:
        peak = logits.max(dim=-1).values
        dist.all_reduce(peak, op=dist.ReduceOp.MAX, group=group)
        shifted = logits - peak[:, None]  # [N, local columns]
        exp = shifted.exp()

        local = targets - first
        is_local = (local >= 0) & (local < logits.shape[-1])
        local = local.clamp(0, logits.shape[-1] - 1)
        target = shifted.gather(-1, local[:, None])[:, 0] * is_local

        sums = torch.stack([exp.sum(-1), (exp * shifted).sum(-1), target])  # [3, N]
        dist.all_reduce(sums, group=group)
        total, weighted, target = sums
        log_total = total.log()
        ctx.save_for_backward(exp.div_(total[:, None]), local, is_local)
        entropy = log_total - weighted / total
        ctx.mark_non_differentiable(entropy)
        return target - log_total, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        # d log p(y) / d z_j = [j = y] - p_j
        softmax, local, is_local = ctx.saved_tensors
        grad_logits = softmax * -grad[:, None]
        grad_logits.scatter_add_(-1, local[:, None], (grad * is_local)[:, None])
        return grad_logits, None, None, None
