"""``torch_npu.npu_fusion_attention`` on CPU tensors, for tests that need no torch_npu.

The operator and its gradient are those of ``tests/npu/packages/npu_operators``, joined as torch_npu does.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from harness import TESTS


def _package(name: str) -> ModuleType:
    """Import one of the packages of a Machine, which are not on the path of the tests."""
    file = TESTS / "npu" / "packages" / name / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, file, submodule_search_locations=[str(file.parent)])
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if "npu_operators" not in sys.modules:
    _package("npu_operators")
from npu_operators import attention  # noqa: E402


class _Attention(Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        args: tuple[Any, ...],
        named: dict[str, Any],
    ) -> Tensor:
        output, maximum, total, *_ = attention.forward(query, key, value, *args, **named)
        ctx.save_for_backward(query, key, value, output, maximum, total)
        ctx.arguments = args, named
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        query, key, value, output, maximum, total = ctx.saved_tensors
        args, named = ctx.arguments
        named = named | {"scale_value": named.get("scale", 1.0)}
        gradients = attention.backward(
            query, key, value, grad, *args,
            **named, softmax_max=maximum, softmax_sum=total, attention_in=output,
        )  # fmt: skip
        return *gradients[:3], None, None


def npu_fusion_attention(
    query: Tensor, key: Tensor, value: Tensor, *args: Any, **named: Any
) -> tuple[Tensor, None, None, None, int, int, int]:
    """Return the attention output, which has a gradient, and placeholders for the other results."""
    return _Attention.apply(query, key, value, args, named), None, None, None, 0, 0, 0
