"""Save and restore the state of a process's random generators, as JSON values.

Only generators of imported libraries are saved: the others have not been used.
"""

from __future__ import annotations

import random
import sys
from typing import Any


def capture() -> dict[str, Any]:
    """Return the state of the generators of Python, NumPy and torch (CPU)."""
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {"python": [version, list(words), gauss]}
    if numpy := sys.modules.get("numpy"):
        name, key, *rest = numpy.random.get_state()
        states["numpy"] = [name, key.tolist(), *rest]
    if torch := sys.modules.get("torch"):
        states["torch"] = pack(torch.get_rng_state())
    return states


def restore(states: dict[str, Any]) -> None:
    """Restore the generators from what ``capture`` returned."""
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    if "numpy" in states:
        import numpy

        name, key, *rest = states["numpy"]
        numpy.random.set_state((name, numpy.array(key, dtype=numpy.uint32), *rest))
    if "torch" in states:
        import torch

        torch.set_rng_state(unpack(states["torch"]))


def pack(state: Any) -> str:
    """Return the state of a torch generator, uint8 [N] on the CPU, in hexadecimal."""
    return bytes(state.tolist()).hex()


def unpack(text: str) -> Any:
    """Return the tensor, uint8 [N] on the CPU, that ``pack`` was called with."""
    import torch

    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
