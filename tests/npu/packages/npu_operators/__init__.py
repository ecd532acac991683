"""Operators of the released torch_npu, computed on the CPU.

The tests' stand-ins for CANN keep device memory in host memory, and have no kernels: without this package
the operators of torch_npu compute nothing. ``host`` aliases tensors of the device as CPU tensors, ``aten``
overrides the operators of PyTorch, ``registry`` collects those of torch_npu's own namespace ``npu``.

A process that imports torch_npu before torch does not load it: torch_npu switches entry points off while it
imports torch (torch_npu/__init__.py).
"""

from __future__ import annotations


def load() -> None:
    """Import torch_npu and override its operators. ``import torch`` calls this (``torch.backends``)."""
    import torch_npu  # noqa: F401  registers the operators that are overridden

    from npu_operators import aten, attention, inference, registry, training  # noqa: F401

    aten.install()
    registry.install()
