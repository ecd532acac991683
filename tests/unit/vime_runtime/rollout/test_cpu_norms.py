from __future__ import annotations

import pytest
import torch
from vime_runtime.rollout import plugin
from vime_runtime.rollout.cpu_norms import PROVIDER
from vllm import ir

from harness.tolerances import of_rounding, of_sum

# The mean square of the rows, 1e-4, is so near the epsilon of 1e-6 that another epsilon gives another result.
SMALL = 1e-2
# The mean of at most 96 squares is computed in fp32. In bf16 the sum with the residual, the normalized row
# and its product with the weight are rounded.
TOLERANCE = {torch.float32: of_sum(torch.float32, 96), torch.bfloat16: of_rounding(torch.bfloat16, 3)}


@pytest.fixture(autouse=True)
def registered() -> None:
    plugin.register()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(7, 96), (5, 3, 64)])
def test_rms_norm_is_that_of_vllm(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    # Heads are slices of a wider tensor.
    x = (SMALL * torch.randn(*shape[:-1], 2 * shape[-1], dtype=dtype))[..., : shape[-1]]
    assert not x.is_contiguous()
    weight = torch.rand(shape[-1], dtype=dtype)
    expected = ir.ops.rms_norm.impls["native"].impl_fn(x, weight, 1e-6)
    ours = ir.ops.rms_norm.impls[PROVIDER]
    assert ours.supports_args(x, weight, 1e-6)
    torch.testing.assert_close(ours.impl_fn(x, weight, 1e-6), expected, **TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fused_add_rms_norm_is_that_of_vllm(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, residual = SMALL * torch.randn(2, 7, 96, dtype=dtype)
    weight = torch.rand(96, dtype=dtype)
    expected = ir.ops.fused_add_rms_norm.impls["native"].impl_fn(x, residual, weight, 1e-6)
    ours = ir.ops.fused_add_rms_norm.impls[PROVIDER]
    assert ours.supports_args(x, residual, weight, 1e-6)
    found = ours.impl_fn(x.clone(), residual.clone(), weight, 1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE[dtype])


def test_unsupported_arguments_fall_back_to_vllm() -> None:
    x = torch.randn(4, 64)
    weight = torch.ones(64)
    norm, after_add = (op.impls[PROVIDER] for op in (ir.ops.rms_norm, ir.ops.fused_add_rms_norm))
    assert not norm.supports_args(x, None, 1e-6)
    assert not norm.supports_args(x, weight.bfloat16(), 1e-6)
    assert not norm.supports_args(x, weight, 1e-6, 32)
    assert not after_add.supports_args(x, torch.randn(64, 4).T, weight, 1e-6)
