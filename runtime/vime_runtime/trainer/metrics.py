"""Means over the response tokens of a step, across its micro-batches and the data-parallel ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

DIFF_MEAN = "logprob/abs_diff_mean"
DIFF_MAX = "logprob/abs_diff_max"


class StepMetrics:
    """Sums on the device while the step goes on, reduced once at its end."""

    def __init__(self, names: list[str], device: torch.device) -> None:
        """``names`` are the means to keep; the same on all ranks, also on one that has no tokens."""
        self._sums = {name: torch.zeros((), device=device) for name in [*names, DIFF_MEAN]}
        self._peak = torch.zeros((), device=device)

    def add(self, name: str, values: Tensor) -> None:
        """Add one number per response token."""
        self._sums[name] += values.detach().sum()

    def add_difference(self, difference: Tensor) -> None:
        """Add trainer's minus rollout's log-probability of each response token, in nats."""
        self.add(DIFF_MEAN, difference.abs())
        self._peak = torch.maximum(self._peak, difference.abs().max())

    def reduce(self, tokens: int, group: dist.ProcessGroup) -> dict[str, float]:
        """The means over the ``tokens`` of all ranks, and the largest difference. A collective."""
        sums = torch.stack(list(self._sums.values()))
        dist.all_reduce(sums, group=group)
        dist.all_reduce(self._peak, op=dist.ReduceOp.MAX, group=group)
        means = (sums / tokens).tolist()
        return {**dict(zip(self._sums, means, strict=True)), DIFF_MAX: self._peak.item()}
