"""Let torch's process groups unpickle plain values only.

torch sends objects between ranks as pickles, and a pickle can call any function of the process that loads it.
gloo does not authenticate its peers. Megatron-core gathers the keys of its parameter groups this way,
and vLLM the names of shared memory. The runtime itself sends tensors.
"""

from __future__ import annotations

import pickle  # nosec B403 # to load plain values only
from typing import Any

import torch
from torch.distributed import distributed_c10d

# Classes that vLLM sends in addition to numbers, texts and containers. Their constructors only keep values.
_CLASSES = {
    ("torch", "Size"),
    ("torch", "device"),
    ("vllm.distributed.device_communicators.shm_broadcast", "Handle"),
    ("vllm.distributed.parallel_state", "TensorMetadata"),
}


class PlainUnpickler(pickle.Unpickler):
    """Load numbers, texts, containers, dtypes and the classes above."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class by name. Raises UnpicklingError for another one."""
        plain_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if plain_dtype or (module, name) in _CLASSES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"another rank sent an object of {module}.{name}: the process groups of a run accept plain values"
        )


def restrict_process_groups() -> None:
    """Make ``broadcast_object_list`` and ``all_gather_object`` in this process refuse other objects."""
    distributed_c10d._unpickler = PlainUnpickler
