from __future__ import annotations

import torch
from vime_runtime.device.cpu import Bf16MatmulInFp32

from harness.tolerances import of_rounding, of_sum


def test_bf16_product_and_gradient_are_the_fp32_ones_rounded_once() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(33, 64).bfloat16(), torch.randn(48, 64).bfloat16()
    weight.requires_grad_()
    grad = torch.randn(33, 48).bfloat16()
    with Bf16MatmulInFp32():
        product = rows @ weight.t()
        product.backward(grad)
    # One rounding is off by half a unit in the last place at most. The rest is the error of sums in fp32, of
    # 64 products of about 1, or 33.
    once = of_rounding(torch.bfloat16)["rtol"] / 2
    sums = of_sum(torch.float32, 64, magnitude=10.0)
    tolerance = {"rtol": once + sums["rtol"], "atol": sums["atol"]}
    exact, exact_grad = rows.double() @ weight.detach().double().t(), grad.double().t() @ rows.double()
    torch.testing.assert_close(product.double(), exact, **tolerance)
    torch.testing.assert_close(weight.grad.double(), exact_grad, **tolerance)


def test_fp32_product_is_unchanged() -> None:
    rows, weight = torch.randn(33, 64), torch.randn(64, 48)
    with Bf16MatmulInFp32():
        product = rows @ weight
    assert product.dtype is torch.float32
    torch.testing.assert_close(product, rows @ weight, **of_sum(torch.float32, 64, magnitude=10.0))
