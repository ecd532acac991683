"""Which class computes the attention of every layer: chosen once in a process, by its device.

Imports nothing of Megatron: the choice is made before Megatron is imported.
"""

from __future__ import annotations

import sys

from torch import nn

# MindSpeed's adaptor changes Megatron's own attention, so that it asks for a mask that a packed row does not
# have; whoever still has that attention in the layer spec then gets it.
ADAPTOR = "mindspeed.megatron_adaptor"

_chosen: type[nn.Module] | None = None


def use(kind: type[nn.Module]) -> None:
    """Let every layer that is built from now on compute its attention with ``kind``.

    Raises:
        RuntimeError: MindSpeed's adaptor has been imported already.
    """
    global _chosen
    if kind is not _chosen and ADAPTOR in sys.modules:
        raise RuntimeError(f"{kind.__name__} has to be in place before {ADAPTOR} is imported")
    _chosen = kind


def chosen() -> type[nn.Module]:
    """The class for ``core_attention`` in the layer spec; where nobody chose, torch's own kernels do it."""
    if _chosen is None:
        from vime_runtime.trainer.attention import PackedAttention

        return PackedAttention
    return _chosen
