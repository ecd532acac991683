"""Group Relative Policy Optimization: advantages, loss, and the means of a step.

GRPO: Shao et al., DeepSeekMath, arXiv 2402.03300. Asymmetric clipping and the token-level loss: Yu et al.,
DAPO, arXiv 2503.14476. All tensors are [N], one number per response token, unless noted otherwise.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from vime_runtime.spec.metrics import LOGPROB_ABS_DIFF_MAX, LOGPROB_ABS_DIFF_MEAN

# Keeps the advantages of a group with equal rewards at zero.
STD_EPS = 1e-6


def group_advantages(rewards: list[float], groups: list[int]) -> list[float]:
    """Normalize rewards within each group: (r - mean) / (std + eps).

    arXiv 2402.03300, section 4.1.2; ``std`` is the sample standard deviation. ``groups`` is the group of each
    reward.
    """
    advantages = [0.0] * len(rewards)
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        values = torch.tensor([rewards[i] for i in members], dtype=torch.float64)
        scaled = (values - values.mean()) / (values.std() + STD_EPS)
        for i, advantage in zip(members, scaled.tolist(), strict=True):
            advantages[i] = advantage
    return advantages


def grpo_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """Return the negated clipped surrogate of each token: arXiv 2503.14476, equation 8.

    -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A) with ratio = exp(logprob - old logprob). The
    gradient flows through ``logprobs``.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) of each token without bias; an estimate is never negative.

    The estimator k3 = (r - 1) - log r with r = p_ref / p of Schulman, "Approximating KL Divergence" (2020),
    which is equation 4 of arXiv 2402.03300.
    """
    log_ratio = reference_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio


class StepMetrics:
    """Sums over the response tokens of a step, on the device, reduced once at the end of the step."""

    def __init__(self, names: list[str], device: torch.device) -> None:
        """Start with zeros. ``names`` are equal on all ranks, also on one that has no tokens."""
        self._sums = {name: torch.zeros((), device=device) for name in [*names, LOGPROB_ABS_DIFF_MEAN]}
        self._max_difference = torch.zeros((), device=device)

    def add(self, name: str, values: Tensor) -> None:
        """Add one number per response token."""
        self._sums[name] += values.detach().sum()

    def add_difference(self, difference: Tensor) -> None:
        """Add the trainer's minus the rollout's log-probability of each response token, in nats."""
        self.add(LOGPROB_ABS_DIFF_MEAN, difference.abs())
        self._max_difference = torch.maximum(self._max_difference, difference.abs().max())

    def reduce(self, tokens: int, group: dist.ProcessGroup) -> dict[str, float]:
        """Return the means over ``tokens`` of all ranks and the largest difference. A collective."""
        sums = torch.stack(list(self._sums.values()))
        dist.all_reduce(sums, group=group)
        dist.all_reduce(self._max_difference, op=dist.ReduceOp.MAX, group=group)
        means = dict(zip(self._sums, (sums / tokens).tolist(), strict=True))
        return means | {LOGPROB_ABS_DIFF_MAX: self._max_difference.item()}
