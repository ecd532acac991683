from __future__ import annotations

import math

import pytest
import torch
from vime_runtime.trainer import grpo

from harness.tolerances import relative


def test_advantages_are_normalized_within_each_group():
    found = grpo.group_advantages([1.0, 0.0, 5.0, 0.0, 1.0, 5.0], [0, 0, 1, 0, 0, 1])
    # Group 0 is 1, 0, 0, 1: mean 1/2, sample deviation sqrt(1/3). Group 1 has equal rewards.
    above = 0.5 / math.sqrt(1 / 3)
    # 1e-6 is added to the deviation, of about 0.6.
    assert found == pytest.approx([above, -above, 0, -above, above, 0], rel=4e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.25, 2.0, -2.5, -2.5),  # inside the upper bound of 1.3
        (1.5, 2.0, -2.6, 0.0),  # above it: no gradient
        (1.5, -2.0, 3.0, 3.0),  # a bad token that became more likely always has a gradient
        (0.7, -2.0, 1.6, 0.0),  # below the lower bound of 0.8
        (0.7, 2.0, -1.4, -1.4),
    ],
)
def test_loss_clips_asymmetrically(ratio, advantage, loss, gradient):
    logprob = torch.tensor([math.log(ratio)], requires_grad=True)
    found = grpo.grpo_loss(logprob, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.3)
    found.sum().backward()
    # A logarithm and its exponential, then two products, in fp32.
    assert found.item() == pytest.approx(loss, **relative(torch.float32, 8))
    # d ratio / d logprob = ratio
    assert logprob.grad.item() == pytest.approx(gradient, **relative(torch.float32, 8))
