"""Log-probabilities of tokens and entropies of their distributions, from hidden states, in chunks of tokens.

The logits of a micro-batch are its largest tensor. Only those of one chunk of tokens exist at a time; the
backward pass computes them again. A micro-batch of one chunk keeps its probabilities and computes nothing
twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from vime_runtime.spec.device_memory import LOGITS_CHUNK_BYTES

LOGIT_BYTES = 4  # they are computed with in fp32


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float,
    vocab_size: int,
    group: dist.ProcessGroup,
    chunk_bytes: int = LOGITS_CHUNK_BYTES,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each target and the entropy of its distribution, in nats, float32.

    The full logits never exist on one rank: each rank computes on its own columns, and three numbers per
    token are reduced. The output layer is Megatron's ColumnParallelLinear without a bias.

    Args:
        hidden: [N, hidden], the output of the last layer, equal on all ranks; any float dtype.
        weight: [local columns, hidden] of the output layer; rows beyond ``vocab_size`` are padding.
        targets: int64 [N], token ids.
        temperature: the logits are divided by it, as in the rollout's sampler.
        vocab_size: number of tokens of the model, without padding.
        group: the tensor-parallel group.
        chunk_bytes: size of the fp32 logits of a chunk.

    Returns:
        log-probabilities [N], differentiable, and entropies [N], not differentiable; equal on all ranks.
    """
    result: tuple[Tensor, Tensor] = _TokenLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden, weight, targets, temperature, vocab_size, group, chunk_bytes
    )
    return result


class _TokenLogprobs(torch.autograd.Function):
    """log p(y) = z_y - log sum exp(z); entropy = log sum exp(z) - sum p z."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        vocab_size: int,
        group: dist.ProcessGroup,
        chunk_bytes: int,
    ) -> tuple[Tensor, Tensor]:
        first = group.rank() * len(weight)
        columns = min(len(weight), max(vocab_size - first, 0))
        local = targets - first
        is_local = (local >= 0) & (local < columns)
        local = local.clamp(0, columns - 1)
        ctx.group, ctx.temperature, ctx.columns = group, temperature, columns
        ctx.rows = max(chunk_bytes // (LOGIT_BYTES * columns), 1)
        ctx.chunked = len(hidden) > ctx.rows
        ctx.softmax = None

        def statistics(rows: Tensor, indices: Tensor, own: Tensor) -> Tensor:
            """Return max z, and of z - max z: sum exp(z), sum exp(z) z and z of the target; [4, chunk]."""
            shifted = _scaled_logits(rows, weight[:columns], temperature)  # [chunk, columns]
            peak = shifted.max(dim=-1).values
            _all_reduce(peak, group, dist.ReduceOp.MAX)
            shifted.sub_(peak[:, None])
            exp = shifted.exp()
            target = shifted.gather(-1, indices[:, None])[:, 0] * own
            sums = torch.stack([exp.sum(-1), shifted.mul_(exp).sum(-1), target])
            _all_reduce(sums, group)
            if not ctx.chunked:
                ctx.softmax = exp.div_(sums[0, :, None])
            return torch.cat([peak[None], sums])

        chunks = (tensor.split(ctx.rows) for tensor in (hidden, local, is_local))
        parts = [statistics(*chunk) for chunk in zip(*chunks, strict=True)]
        peak, total, weighted, target = torch.cat(parts, dim=1) if ctx.chunked else parts[0]
        log_total = total.log()
        entropy = log_total - weighted / total
        ctx.mark_non_differentiable(entropy)
        ctx.save_for_backward(hidden, weight, local, is_local, peak, total)
        return target - log_total, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, *vectors = ctx.saved_tensors
        own_weight = weight[: ctx.columns]
        grad_hidden = torch.empty_like(hidden)
        grad_weight = None
        chunks = (tensor.split(ctx.rows) for tensor in (hidden, grad_hidden, grad, *vectors))
        for rows, grad_rows, upstream, indices, own, peak, total in zip(*chunks, strict=True):
            if ctx.chunked:
                softmax = _scaled_logits(rows, own_weight, ctx.temperature)
                softmax.sub_(peak[:, None]).exp_().div_(total[:, None])
            else:
                softmax, ctx.softmax = ctx.softmax, None
            # d log p(y) / d z_j = [j = y] - p_j
            softmax.mul_(-upstream[:, None])
            softmax.scatter_add_(-1, indices[:, None], (upstream * own)[:, None])
            grad_logits = softmax.div_(ctx.temperature).to(weight.dtype)
            del softmax
            grad_rows.copy_(grad_logits @ own_weight)
            if not ctx.needs_input_grad[1]:
                continue
            part = grad_logits.t() @ rows
            # The sum over the chunks is in fp32, so that it is rounded only once.
            grad_weight = part if grad_weight is None else grad_weight.float().add_(part)
            del part, grad_logits
        _all_reduce(grad_hidden, ctx.group)
        if grad_weight is not None:
            padding = len(weight) - ctx.columns
            grad_weight = pad(grad_weight, (0, 0, 0, padding)) if padding else grad_weight
            grad_weight = grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, *[None] * 5


def _scaled_logits(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Return the logits divided by the temperature, float32 [tokens, columns]."""
    return (hidden @ weight.t()).float().div_(temperature)


def _all_reduce(
    tensor: Tensor, group: dist.ProcessGroup, op: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM
) -> None:
    if group.size() > 1:
        dist.all_reduce(tensor, op=op, group=group)
