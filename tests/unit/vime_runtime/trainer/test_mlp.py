from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu
from vime_runtime.trainer.mlp import SwiGLU


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_equals_torch_bitwise(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    gate_and_up = torch.randn(5, 1, 2 * 48, dtype=dtype, requires_grad=True)
    copy = gate_and_up.detach().clone().requires_grad_()
    grad = torch.randn(5, 1, 48, dtype=dtype)
    gate, up = copy.chunk(2, dim=-1)
    expected = silu(gate) * up
    output = SwiGLU(None)(gate_and_up)
    assert torch.equal(output, expected)
    expected.backward(grad)
    output.backward(grad)
    assert torch.equal(gate_and_up.grad, copy.grad)


def test_swiglu_saves_only_its_input() -> None:
    saved: list[torch.Tensor] = []
    row = torch.randn(4, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor
    ):
        SwiGLU(None)(row)
    assert [tensor.data_ptr() for tensor in saved] == [row.data_ptr()]
