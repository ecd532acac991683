"""The training state of one rank: what its next steps depend on, written to a file and put back in place.

The tensors are torch's own format: ``torch.save`` writes one tensor after the other, so that no second
copy of the state is needed in memory, which safetensors' writer makes; ``torch.load`` with ``weights_only``
runs no code from the file and maps it, so that reading takes no second copy either.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from torch import Tensor

from vime_runtime.checkpoint import random_state
from vime_runtime.spec import atomic_io
from vime_runtime.spec.atomic_io import FileRecord


def file_name(rank: int, size: int) -> str:
    """The file of one of the ranks that have a model among them; others that hold the same share it."""
    return f"rank-{rank}-of-{size}.pt"


def write(path: Path, tensors: dict[str, Tensor]) -> FileRecord:
    """Write the tensors and return what the file must be. Raises OSError naming it."""
    return atomic_io.write_file(path, lambda file: torch.save(tensors, file))


@torch.no_grad()
def read(path: Path, tensors: dict[str, Tensor]) -> None:
    """Copy a file's tensors into ``tensors``, which stay where they are.

    Raises:
        ValueError: the file is of another model or optimizer; nothing was copied.
    """
    stored = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if stored.keys() != tensors.keys():
        differing = sorted(stored.keys() ^ tensors.keys())
        raise ValueError(f"{path} is not of this model: {differing[0]} and {len(differing) - 1} more differ")
    for name, tensor in tensors.items():
        found, expected = (stored[name].dtype, stored[name].shape), (tensor.dtype, tensor.shape)
        if found != expected:
            raise ValueError(f"{path}: {name} is {found[0]} {list(found[1])}, expected {expected}")
    for name, tensor in tensors.items():
        tensor.copy_(stored[name])


def capture_random(device: torch.device) -> dict[str, Any]:
    """Where this rank's generators stand: the process's, Megatron's tracker, the device's. Plain values."""
    states = random_state.capture()
    states["megatron"] = {
        name: random_state.pack(state) for name, state in get_cuda_rng_tracker().get_states().items()
    }
    if device.type != "cpu":
        states["device"] = random_state.pack(torch.get_device_module(device).get_rng_state())
    return states


def restore_random(states: dict[str, Any], device: torch.device) -> None:
    """Put the generators back to where ``capture_random`` found them."""
    random_state.restore(states)
    get_cuda_rng_tracker().set_states(
        {name: random_state.unpack(state) for name, state in states["megatron"].items()}
    )
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(random_state.unpack(states["device"]))
