from __future__ import annotations

import math

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vime_runtime.spec.device_memory import LOGITS
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


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operators have made and that still exist."""

    def __init__(self):
        super().__init__()
        self._storages = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._storages = {key: kept for key, kept in self._storages.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(nbytes for _, nbytes in self._storages.values()))
        return result


class OneRank:
    def rank(self):
        return 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_loss_takes_as_much_memory_as_is_computed(dtype, monkeypatch):
    monkeypatch.setattr(dist, "all_reduce", lambda *args, **kwargs: None)
    tokens, columns = 64, 4096
    hidden = torch.randn(tokens, 1, dtype=getattr(torch, dtype), requires_grad=True)
    weight = torch.randn(columns, 1, dtype=getattr(torch, dtype))

    def logprobs():
        return grpo.token_logprobs(
            hidden @ weight.T, torch.zeros(tokens, dtype=torch.int64), 0.7, columns, OneRank()
        )[0]

    with LiveBytes() as live:
        logprobs().sum().backward()
    computed = LOGITS[dtype] * tokens * columns
    # In addition to the matrices of tokens and columns there are vectors with one number for each of either.
    assert computed <= live.peak <= 1.01 * computed
