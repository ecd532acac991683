"""Fast matrix products of bf16 tensors on a CPU without AVX-512 or AMX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class ProductsInFp32(TorchDispatchMode):
    """Computes every bf16 ``mm`` in fp32 and rounds the result once.

    Without vector instructions for bf16, torch falls back to a scalar loop that is an order of
    magnitude slower than converting. The result is at least as exact: the loop rounds to bf16 as well.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is aten.mm.default and args[0].dtype is torch.bfloat16:
            return torch.mm(args[0].float(), args[1].float()).bfloat16()
        return func(*args, **(kwargs or {}))
