"""Log-probabilities in chunks: exact, on one rank and two, with little memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed import FileStore
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vime_runtime.spec import device_memory
from vime_runtime.spec.device_memory import loss_memory
from vime_runtime.trainer.logprobs import token_logprobs

from harness.tolerances import of_sum

TOKENS, HIDDEN, VOCABULARY, TEMPERATURE = 50, 24, 101, 0.7


def inputs(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Return hidden states, weight, targets, and the gradient of the log-probabilities."""
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=draw)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=draw) / 2
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=draw)
    return hidden.to(dtype), weight.to(dtype), targets, torch.randn(TOKENS, generator=draw)


def plain(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Compute the same with torch's own functions, in fp64."""
    hidden, weight, targets, upstream = inputs(dtype)
    hidden, weight = (tensor.double().requires_grad_() for tensor in (hidden, weight))
    logprobs = (hidden @ weight.T / TEMPERATURE).log_softmax(-1)
    chosen = logprobs.gather(-1, targets[:, None])[:, 0]
    chosen.backward(upstream.double())
    entropy = -(logprobs.exp() * logprobs).sum(-1).detach()
    return {"logprobs": chosen.detach(), "entropy": entropy, "hidden": hidden.grad, "weight": weight.grad}


def chunked(rank: int, world_size: int, store: str, dtype: torch.dtype, rows: int) -> dict[str, Any]:
    """Compute on one rank's part of the vocabulary, so many tokens at a time."""
    from vime_runtime.trainer import parallel

    groups = parallel.start("gloo", rank, world_size, FileStore(store, world_size), world_size)
    try:
        hidden, weight, targets, upstream = inputs(dtype)
        columns = -(-VOCABULARY // world_size)
        padded = torch.full((columns * world_size, HIDDEN), 9.0, dtype=dtype)  # must not change a number
        padded[:VOCABULARY] = weight
        own = padded[rank * columns : (rank + 1) * columns].clone().requires_grad_()
        calls = []
        own.register_hook(lambda grad: calls.append(grad.dtype))
        hidden.requires_grad_()
        logprobs, entropy = token_logprobs(
            hidden, own, targets, TEMPERATURE, VOCABULARY, groups.tensor, rows * columns * 4
        )
        logprobs.backward(upstream)
        return {
            "logprobs": logprobs.detach(),
            "entropy": entropy,
            "hidden": hidden.grad,
            "weight": own.grad,
            "calls": calls,
            "differentiable": (logprobs.requires_grad, entropy.requires_grad),
        }
    finally:
        parallel.stop()


@pytest.mark.parametrize("rows", [TOKENS, 17, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("size", [1, 2])
def test_chunks_have_the_numbers_of_torch_on_one_rank_and_two(ranks, size, dtype, rows):
    expected = plain(dtype)
    found = ranks.run(chunked, size, dtype, rows)
    weight = torch.cat([one.pop("weight") for one in found])
    # Logits of 24 terms of size 3, and their gradients: sums over 101 columns, or over 50 tokens.
    close = of_sum(dtype, 4 if dtype is torch.bfloat16 else VOCABULARY, magnitude=3.0)
    torch.testing.assert_close(weight[:VOCABULARY].double(), expected["weight"], **close)
    assert not weight[VOCABULARY:].any()
    for one in found:
        # Autograd gets one gradient for all chunks, so that it is rounded to the dtype of the weight once.
        assert one["calls"] == [dtype]
        assert one["differentiable"] == (True, False)
        for name in ("logprobs", "entropy", "hidden"):
            torch.testing.assert_close(one[name].double(), expected[name], **close)


def error_of_weight(rank: int, world_size: int, store: str, rows: int) -> float:
    """Return the error of a bf16 gradient that every token adds the same to, relative to it."""
    from vime_runtime.trainer import parallel

    groups = parallel.start("gloo", rank, world_size, FileStore(store, world_size), 1)
    try:
        tokens = 2048
        hidden = torch.ones(tokens, 1, dtype=torch.bfloat16)
        weight = torch.zeros(4, 1, dtype=torch.bfloat16, requires_grad=True)
        targets = torch.zeros(tokens, dtype=torch.int64)
        token_logprobs(hidden, weight, targets, 1.0, 4, groups.tensor, rows * 16)[0].sum().backward()
        expected = tokens * torch.tensor([0.75, -0.25, -0.25, -0.25])
        return ((weight.grad[:, 0].float() - expected).norm() / expected.norm()).item()
    finally:
        parallel.stop()


def test_gradients_of_many_chunks_are_added_in_fp32(ranks):
    # Added in bf16, 192 + 0.75 is 193, and 256 + 0.75 is 256: the sum of 2048 chunks would stay there.
    assert ranks.run(error_of_weight, 1, 1)[0] <= torch.finfo(torch.bfloat16).eps


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages that operators return and that still exist, except one tensor's."""

    def __init__(self, ignored):
        super().__init__()
        self._ignored = ignored.untyped_storage()._cdata
        self._storages = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            storage = tensor.untyped_storage()
            if storage._cdata != self._ignored:
                self._storages[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._storages = {key: kept for key, kept in self._storages.items() if not kept[0].expired()}
        self.peak = max(self.peak, sum(nbytes for _, nbytes in self._storages.values()))
        return result


class OneRank:
    def rank(self):
        return 0

    def size(self):
        return 1


@pytest.mark.parametrize("tokens", [256, 4096], ids=["one chunk", "chunks"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("hidden_size", [1, 256])
def test_the_loss_takes_as_much_memory_as_is_computed(dtype, tokens, hidden_size, monkeypatch):
    columns, chunk = 4096, 256
    monkeypatch.setattr(device_memory, "LOGITS_CHUNK_BYTES", 4 * chunk * columns)
    hidden, weight = (
        torch.randn(rows, hidden_size, dtype=getattr(torch, dtype), requires_grad=True)
        for rows in (tokens, columns)
    )
    targets = torch.zeros(tokens, dtype=torch.int64)
    with LiveBytes(ignored=weight) as live:
        logprobs, _ = token_logprobs(
            hidden, weight, targets, 0.7, columns, OneRank(), device_memory.LOGITS_CHUNK_BYTES
        )
        logprobs.sum().backward()
    computed = loss_memory(dtype, tokens, columns, hidden_size).nbytes
    # In addition to the matrices there are vectors with some numbers for each token.
    assert computed <= live.peak <= 1.02 * computed + 100 * tokens
