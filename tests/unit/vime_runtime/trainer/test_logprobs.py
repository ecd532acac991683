from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vime_runtime.spec.device_memory import LOGITS
from vime_runtime.trainer.logprobs import token_logprobs


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
        return token_logprobs(
            hidden @ weight.T, torch.zeros(tokens, dtype=torch.int64), 0.7, columns, OneRank()
        )[0]

    with LiveBytes() as live:
        logprobs().sum().backward()
    computed = LOGITS[dtype] * tokens * columns
    # In addition to the matrices of tokens and columns there are vectors with one number for each of either.
    assert computed <= live.peak <= 1.01 * computed
