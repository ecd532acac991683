"""Group Relative Policy Optimization as pure functions.

GRPO: Shao et al., DeepSeekMath, arXiv 2402.03300. Asymmetric clipping and the token-level loss:
Yu et al., DAPO, arXiv 2503.14476.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps a group whose rewards are all equal at advantage zero.
STD_EPS = 1e-6


def advantages(rewards: list[float], groups: list[int]) -> list[float]:
    """How much better each response is than its group: (r - mean) / (std + eps).

    arXiv 2402.03300, section 4.1.2; ``std`` is the sample standard deviation. ``groups`` gives the group
    of each reward.
    """
    result = [0.0] * len(rewards)
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        values = torch.tensor([rewards[i] for i in members], dtype=torch.float64)
        scaled = (values - values.mean()) / (values.std() + STD_EPS)
        for i, advantage in zip(members, scaled.tolist(), strict=True):
            result[i] = advantage
    return result


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """The clipped surrogate, negated, for each token: arXiv 2503.14476 equation 8.

    -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A) with ratio = exp(logprob - old logprob).
    All tensors are [N]; the gradient flows through ``logprobs``.
    """
    ratio = torch.exp(logprobs - old_logprobs)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) for each token, unbiased, never negative.

    The estimator k3 = (r - 1) - log r with r = p_ref / p of Schulman, "Approximating KL Divergence" (2020),
    which is equation 4 of arXiv 2402.03300.
    """
    log_ratio = reference_logprobs - logprobs
    return torch.expm1(log_ratio) - log_ratio
