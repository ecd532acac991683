"""Group Relative Policy Optimization: what is trained, advantages, loss, and the means of a step.

GRPO: Shao et al., DeepSeekMath, arXiv 2402.03300. Asymmetric clipping and the token-level loss: Yu et al.,
DAPO, arXiv 2503.14476. ``docs/explanation/algorithm.md`` describes every switch. All tensors are [N], one
number per response token, unless noted otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from vime_runtime.batch import RolloutBatch
from vime_runtime.spec.errors import NotFinite
from vime_runtime.spec.metrics import (
    LOGPROB_ABS_DIFF_MAX,
    LOGPROB_ABS_DIFF_MEAN,
    TRAIN_CLIP_FRACTION,
    TRAIN_ENTROPY,
    TRAIN_IMPORTANCE_CAPPED,
    TRAIN_IMPORTANCE_WEIGHT,
    TRAIN_KL,
    TRAIN_LOSS,
)
from vime_runtime.spec.recipe import AlgorithmTable, Recipe

if TYPE_CHECKING:
    from vime_runtime.trainer.packing import MicroBatch  # importing it imports Megatron-core

# Keeps the advantages of a group with equal rewards at zero.
STD_EPS = 1e-6
# Differences of log-probabilities are clamped to +-20 before their exponential, and k3 to at most 10, as in
# verl (verl/trainer/ppo/core_algos.py at v0.7.0: compute_policy_loss_vanilla, kl_penalty_forward). fp32
# overflows above 88.
MAX_LOG_RATIO = 20.0
MAX_K3 = 10.0


@dataclass(frozen=True)
class Update:
    """One optimizer update of a step.

    Attributes:
        groups: for each prompt the indices of the responses that are trained on.
        tokens: the tokens of these responses.
        divisor: the sum of the token losses is divided by it.
    """

    groups: list[list[int]]
    tokens: int
    divisor: int


def plan_updates(batch: RolloutBatch, recipe: Recipe) -> list[Update]:
    """Distribute the groups over the updates of a step, without the responses that are not trained on.

    It depends on nothing but the arguments, so all ranks return the same. An update without responses is left
    out: the optimizer makes no step then.
    """
    settings = recipe.algorithm
    dropped = batch.uniform_groups() if settings.drop_uniform_groups else set()
    updates = []
    for number in range(settings.updates_per_step):
        groups = [
            members
            for group, members in batch.members().items()
            if group % settings.updates_per_step == number and group not in dropped
        ]
        trained = [
            [i for i in members if not (settings.mask_truncated and batch.truncated[i])] for members in groups
        ]
        tokens = sum(len(batch.responses[i]) for members in trained for i in members)
        if settings.loss_average == "tokens":
            divisor = tokens
        else:  # masked responses count here: the divisor depends on no response
            divisor = sum(map(len, groups)) * recipe.rollout.max_response_tokens
        if tokens:
            updates.append(Update([members for members in trained if members], tokens, divisor))
    return updates


def group_advantages(rewards: list[float], groups: list[int], scale: bool = True) -> list[float]:
    """Normalize rewards within each group: (r - mean) / (std + eps), arXiv 2402.03300, section 4.1.2.

    Args:
        rewards: one number per response, also of those that are not trained on.
        groups: the group of each reward.
        scale: divide by the sample standard deviation; r - mean otherwise (Liu et al., Dr. GRPO,
            arXiv 2503.20783).
    """
    advantages = [0.0] * len(rewards)
    for group in set(groups):
        members = [i for i, g in enumerate(groups) if g == group]
        values = torch.tensor([rewards[i] for i in members], dtype=torch.float64)
        centered = values - values.mean()
        scaled = centered / (values.std() + STD_EPS) if scale else centered
        for i, advantage in zip(members, scaled.tolist(), strict=True):
            advantages[i] = advantage
    return advantages


def token_losses(
    logprobs: Tensor, micro_batch: MicroBatch, settings: AlgorithmTable, metrics: StepMetrics
) -> Tensor:
    """Return the loss of each token, and add the metrics that belong to it.

    Without ``old_logprobs`` in the micro-batch, the policy before the update is the policy itself.
    """
    old = logprobs.detach() if micro_batch.old_logprobs is None else micro_batch.old_logprobs
    losses, clipped = clipped_surrogate(
        logprobs, old, micro_batch.advantages, settings.clip_low, settings.clip_high
    )
    metrics.add(TRAIN_CLIP_FRACTION, clipped)
    if settings.importance_sampling_cap is not None:
        cap = settings.importance_sampling_cap
        weights, capped = importance_weights(old, micro_batch.rollout_logprobs, cap)
        losses = losses * weights
        metrics.add(TRAIN_IMPORTANCE_WEIGHT, weights)
        metrics.add(TRAIN_IMPORTANCE_CAPPED, capped)
    if micro_batch.reference_logprobs is not None:
        kl = kl_k3(logprobs, micro_batch.reference_logprobs)
        losses = losses + settings.kl_coefficient * kl
        metrics.add(TRAIN_KL, kl)
    metrics.add_difference(old - micro_batch.rollout_logprobs)
    return losses


def clipped_surrogate(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Return the negated clipped surrogate of each token, and which tokens are clipped.

    arXiv 2503.14476, equation 8: -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A) with
    ratio = exp(logprob - old logprob). The gradient flows through ``logprobs``; a clipped token has none.
    """
    ratio = _ratio(logprobs, old_logprobs)
    surrogate = ratio * advantages
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    return -torch.minimum(surrogate, clipped), clipped < surrogate


@torch.no_grad()
def importance_weights(logprobs: Tensor, rollout_logprobs: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """Return min(exp(logprob - rollout logprob), cap) of each token, without gradient, and which are capped.

    Truncated importance sampling: Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL
    Training" (2025). ``logprobs`` are the trainer's before the update.
    """
    weights = _ratio(logprobs, rollout_logprobs)
    return weights.clamp(max=cap), weights > cap


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) of each token without bias; an estimate is never negative.

    The estimator k3 = (r - 1) - log r with r = p_ref / p of Schulman, "Approximating KL Divergence" (2020),
    which is equation 4 of arXiv 2402.03300. It is clamped to 10; a clamped token has no gradient.
    """
    log_ratio = (reference_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (torch.expm1(log_ratio) - log_ratio).clamp(max=MAX_K3)


def _ratio(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    return torch.exp((logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


class StepMetrics:
    """Sums over the trained tokens of a step, on the device, reduced once at the end of the step."""

    def __init__(self, settings: AlgorithmTable, device: torch.device) -> None:
        """Start with zeros: the settings decide which metrics there are, also on a rank without tokens."""
        names = [TRAIN_LOSS, TRAIN_ENTROPY, TRAIN_CLIP_FRACTION, LOGPROB_ABS_DIFF_MEAN]
        if settings.importance_sampling_cap is not None:
            names += [TRAIN_IMPORTANCE_WEIGHT, TRAIN_IMPORTANCE_CAPPED]
        if settings.kl_coefficient > 0:
            names.append(TRAIN_KL)
        self._sums = {name: torch.zeros((), device=device) for name in names}
        self._max_difference = torch.zeros((), device=device)

    def add(self, name: str, values: Tensor) -> None:
        """Add one number per response token."""
        self._sums[name] += values.detach().sum()

    def add_difference(self, difference: Tensor) -> None:
        """Add the trainer's minus the rollout's log-probability of each response token, in nats."""
        self.add(LOGPROB_ABS_DIFF_MEAN, difference.abs())
        self._max_difference = torch.maximum(self._max_difference, difference.abs().max())

    def reduce(self, tokens: int, group: dist.ProcessGroup) -> dict[str, float]:
        """Return the means over ``tokens`` of all ranks and the largest difference; 0 without tokens.

        A collective.
        """
        sums = torch.stack(list(self._sums.values()))
        dist.all_reduce(sums, group=group)
        dist.all_reduce(self._max_difference, op=dist.ReduceOp.MAX, group=group)
        means = dict(zip(self._sums, (sums / max(tokens, 1)).tolist(), strict=True))
        return means | {LOGPROB_ABS_DIFF_MAX: self._max_difference.item()}


def check_finite(step: int, metrics: dict[str, float]) -> None:
    """Raise NotFinite if a metric of a step is infinite or NaN."""
    found = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if found:
        raise NotFinite(
            f"step {step}: {', '.join(found)}",
            "lower optimizer.lr (the usual cause: weights that grew too large in an earlier step) or "
            'optimizer.clip_grad; if it is the first step, check model.path, or try model.dtype = "float32"',
        )
