from __future__ import annotations

import torch
from vime_runtime.device.cpu import Bf16MatmulInFp32


def test_bf16_product_and_gradient_are_the_fp32_ones_rounded_once() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(33, 64).bfloat16(), torch.randn(48, 64).bfloat16()
    weight.requires_grad_()
    grad = torch.randn(33, 48).bfloat16()
    with Bf16MatmulInFp32():
        product = rows @ weight.t()
        product.backward(grad)
    assert torch.equal(product, (rows.float() @ weight.float().t()).bfloat16())
    assert torch.equal(weight.grad, (grad.float().t() @ rows.float()).bfloat16())


def test_fp32_product_is_unchanged() -> None:
    rows, weight = torch.randn(33, 64), torch.randn(64, 48)
    with Bf16MatmulInFp32():
        product = rows @ weight
    assert product.dtype is torch.float32
    assert torch.equal(product, rows @ weight)
