"""A layer of experts, for Megatron's local layer spec: its router and its experts, joined as an MLP is.

Megatron's own layer divides the tokens among the tensor-parallel ranks and needs sequence parallelism for
it, which the norms of the local spec do not have. Here the ranks of a replica all see its tokens, each
computes what its experts, or its rows of every expert, make of them, and the sum over the ranks is the
layer's output: communication as in a dense layer. Where the experts are divided among the ranks of several
replicas, those exchange their tokens first.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor
from torch.nn.functional import linear


class Router(TopKRouter):
    """Megatron's router, but for its product: that moves the weight to a GPU first, and in Megatron-core
    0.16.1 looks for Transformer Engine by a name that is not there without it."""

    def gating(self, input: Tensor) -> Tensor:
        """Logits, float32 [..., experts]."""
        return linear(input.float(), self.weight.float())


class Experts(MoELayer):
    """Megatron's layer of experts, without its communication."""

    def __init__(self, *args: Any, replicas: dist.ProcessGroup | None = None, **kwargs: Any) -> None:
        """Build it.

        Args:
            replicas: one rank of each replica among which the experts are divided; None when each
                replica has all of them.
        """
        super().__init__(*args, **kwargs)
        self._replicas = replicas

    def forward(self, hidden_states: Tensor, *unused: Any, **also_unused: Any) -> tuple[Tensor, None]:
        """Compute the layer.

        Args:
            hidden_states: [T, 1, hidden], the same on all ranks of a replica; T is the same everywhere
                when replicas exchange tokens.

        Returns:
            the output, of the same shape and dtype, and no bias.
        """
        probs, routing = self.route(hidden_states)
        tokens, probs = (
            _Copy.apply(tensor, self.tp_group) for tensor in (hidden_states.flatten(0, 1), probs)
        )
        if self._replicas is not None:
            tokens, probs = (_Gather.apply(tensor, self._replicas) for tensor in (tokens, probs))
            # No tensor of bools travels over gloo.
            routing = _gathered(routing.to(torch.uint8), self._replicas).bool()
        self.token_dispatcher.routing_map = routing
        dispatched, counts, probs = self.token_dispatcher.dispatch_postprocess(tokens, probs)
        output, _ = self.experts(dispatched, counts, probs)
        # What a token's experts say is added up in fp32.
        output = self.token_dispatcher.combine_preprocess(output.float()).to(hidden_states.dtype)
        if self._replicas is not None:
            output = _ReduceScatter.apply(output, self._replicas)
        return reduce_from_tensor_model_parallel_region(output).view_as(hidden_states), None


class _Copy(torch.autograd.Function):
    """The same rows on all ranks; each uses them in its own way, so their gradients add up.

    Megatron's own adds up a copy where a gradient is not contiguous, and that of the probabilities is not.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Gather(torch.autograd.Function):
    """The rows of all ranks; each uses all of them in its own way, so their gradients add up."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _gathered(rows, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _scattered_sum(grad, ctx.group), None


class _ReduceScatter(torch.autograd.Function):
    """Each rank's rows of the sum over the ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _scattered_sum(rows, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _gathered(grad, ctx.group), None


def _gathered(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    gathered = rows.new_empty(group.size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, rows.contiguous(), group=group)
    return gathered


def _scattered_sum(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    own = rows.new_empty(len(rows) // group.size(), *rows.shape[1:])
    dist.reduce_scatter_tensor(own, rows.contiguous(), group=group)
    return own
