"""The MLP of a layer, for Megatron's local layer spec: SwiGLU, and a mixture of experts.

Megatron's own MoE layer distributes the tokens over the tensor-parallel ranks. That needs sequence
parallelism, which the norms of the local spec do not support. Here all ranks of a replica have all of its
tokens. Each rank computes the contribution of its experts, or of its rows of every expert. The output is the
sum over the ranks: the same communication as in a dense MLP. If the experts are distributed over the ranks of
several replicas, these replicas exchange their tokens first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel import reduce_from_tensor_model_parallel_region
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.router import TopKRouter
from torch import Tensor, nn
from torch.nn.functional import linear, silu

Collective = Callable[[Tensor, dist.ProcessGroup], Tensor]


class SwiGLU(nn.Module):
    """The activation of an MLP on a CPU, silu(gate) * up, with few passes over memory.

    Source: Shazeer, arXiv 2002.05202. Megatron's own, if it is neither a CUDA kernel nor compiled, adds an
    offset of zero, saves three tensors for the backward pass, and joins the halves of the gradient in another
    pass.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()

    def forward(self, gate_and_up: Tensor) -> Tensor:
        """Map [..., 2 * width], the gate first, to [..., width]."""
        output: Tensor = _SwiGLU.apply(gate_and_up)  # type: ignore[no-untyped-call]
        return output


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_and_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_and_up)
        gate, up = gate_and_up.chunk(2, dim=-1)
        return silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_and_up,) = ctx.saved_tensors
        gate, up = gate_and_up.chunk(2, dim=-1)
        result = torch.empty_like(gate_and_up)
        grad_gate, grad_up = result.chunk(2, dim=-1)
        torch.mul(silu(gate), grad, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return result


class NpuSwiGLU(SwiGLU):
    """The same in one kernel of an NPU, and one for the backward pass. It rounds the result only once."""

    def forward(self, gate_and_up: Tensor) -> Tensor:
        """Map [..., 2 * width], the gate first, to [..., width]."""
        import torch_npu

        output: Tensor = torch_npu.npu_swiglu(gate_and_up, dim=-1)
        return output


def activation_class(device: torch.device, experts: bool) -> type[nn.Module] | None:
    """Return the class of the activation of an MLP, or of each expert; None for Megatron's own."""
    if device.type == "npu":
        return NpuSwiGLU
    return None if experts else SwiGLU


class LocalRouter(TopKRouter):  # type: ignore[misc]
    """Megatron's router with another matrix product.

    Megatron's moves the weight to a GPU first, and Megatron-core 0.16.1 refers there to a name that exists
    only with Transformer Engine.
    """

    def gating(self, input: Tensor) -> Tensor:
        """Return the logits, float32 [..., experts]."""
        return linear(input.float(), self.weight.float())


class ExpertLayer(MoELayer):  # type: ignore[misc]
    """Megatron's MoE layer with the communication that the module's docstring describes."""

    def __init__(self, *args: Any, replicas: dist.ProcessGroup | None = None, **kwargs: Any) -> None:
        """Build the layer.

        Args:
            replicas: one rank of each replica over which the experts are distributed; None if each replica
                has all experts.
        """
        super().__init__(*args, **kwargs)
        self._replicas = replicas

    def forward(self, hidden_states: Tensor, *unused: Any, **also_unused: Any) -> tuple[Tensor, None]:
        """Compute the layer.

        Args:
            hidden_states: [tokens, 1, hidden], equal on all ranks of a replica. If replicas exchange tokens,
                all of them have the same number.

        Returns:
            the output, of the same shape and dtype, and no bias.
        """
        probs, routing = self.route(hidden_states)  # both [tokens, experts]
        # [tokens, hidden] and [tokens, experts]
        rows = [_apply(part, self.tp_group, _copy, _sum) for part in (hidden_states.flatten(0, 1), probs)]
        if self._replicas is not None:
            rows = [_apply(part, self._replicas, _gather, _reduce_scatter) for part in rows]
            routing = _gather(routing.to(torch.uint8), self._replicas).bool()  # gloo does not send bools
        self.token_dispatcher.routing_map = routing
        dispatched, counts, probs = self.token_dispatcher.dispatch_postprocess(*rows)
        output, _ = self.experts(dispatched, counts, probs)
        # The outputs of a token's experts are added in fp32.
        output = self.token_dispatcher.combine_preprocess(output.float()).to(hidden_states.dtype)
        if self._replicas is not None:
            output = _apply(output, self._replicas, _reduce_scatter, _gather)
        return reduce_from_tensor_model_parallel_region(output).view_as(hidden_states), None


class _Collective(torch.autograd.Function):
    """Apply a collective to rows, and another one to their gradient."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, group: dist.ProcessGroup, forward: Collective, backward: Collective
    ) -> Tensor:
        ctx.group, ctx.collective = group, backward
        return forward(rows, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.collective(grad, ctx.group), None, None, None


def _apply(rows: Tensor, group: dist.ProcessGroup, forward: Collective, backward: Collective) -> Tensor:
    result: Tensor = _Collective.apply(rows, group, forward, backward)  # type: ignore[no-untyped-call]
    return result


def _copy(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    return rows.view_as(rows)


def _sum(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Add the rows of all ranks.

    Megatron's own adds into a copy if a gradient is not contiguous, and that of the probabilities is not.
    """
    total = rows.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def _gather(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    gathered = rows.new_empty(group.size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(gathered, rows.contiguous(), group=group)
    return gathered


def _reduce_scatter(rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Return this rank's rows of the sum over the ranks."""
    own = rows.new_empty(len(rows) // group.size(), *rows.shape[1:])
    dist.reduce_scatter_tensor(own, rows.contiguous(), group=group)
    return own
