"""Log-probabilities and entropy over a vocabulary that is split over the tensor-parallel ranks.

The full logits never exist in one place: each rank works on its own columns, and three numbers per
token are reduced. log p(y) = z_y - log sum exp(z); entropy = log sum exp(z) - sum p z.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, first: int, group: dist.ProcessGroup
    ) -> tuple[Tensor, Tensor]:
        peak = logits.max(dim=-1).values
        dist.all_reduce(peak, op=dist.ReduceOp.MAX, group=group)
        shifted = logits - peak[:, None]
        exp = shifted.exp()

        local = targets - first
        mine = (local >= 0) & (local < logits.shape[-1])
        local = local.clamp(0, logits.shape[-1] - 1)
        target = shifted.gather(-1, local[:, None])[:, 0] * mine

        sums = torch.stack([exp.sum(-1), (exp * shifted).sum(-1), target])
        dist.all_reduce(sums, group=group)
        total, weighted, target = sums
        log_total = total.log()
        ctx.save_for_backward(exp.div_(total[:, None]), local, mine)
        entropy = log_total - weighted / total
        ctx.mark_non_differentiable(entropy)
        return target - log_total, entropy

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        # d log p(y) / d z_j = [j = y] - p_j
        softmax, local, mine = ctx.saved_tensors
        grad_logits = softmax * -grad[:, None]
        grad_logits.scatter_add_(-1, local[:, None], (grad * mine)[:, None])
        return grad_logits, None, None, None


def token_logprobs(
    logits: Tensor, targets: Tensor, temperature: float, vocabulary: int, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, in nats, float32.

    Args:
        logits: [N, columns of this rank], any float dtype; columns past the vocabulary are padding.
        targets: int64 [N], token ids.
        temperature: the logits are divided by it, as the rollout's sampler does.
        vocabulary: the true number of tokens.
        group: the tensor-parallel group.

    Returns:
        log-probabilities [N], differentiable, and entropies [N], not differentiable; equal on all ranks.
    """
    first = dist.get_rank(group) * logits.shape[-1]
    own = logits[:, : max(vocabulary - first, 0)]
    return _LogProbs.apply(own.float() / temperature, targets, first, group)
