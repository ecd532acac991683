"""Where the random generators of a process stand, as plain values that JSON can hold.

Only generators whose library this process has loaded are captured: nothing has drawn from the others.
"""

from __future__ import annotations

import random
import sys
from typing import Any


def capture() -> dict[str, Any]:
    """The generators of Python, NumPy and torch (the one of the host)."""
    version, words, gauss = random.getstate()
    states: dict[str, Any] = {"python": [version, list(words), gauss]}
    if numpy := sys.modules.get("numpy"):
        name, key, *rest = numpy.random.get_state()
        states["numpy"] = [name, key.tolist(), *rest]
    if torch := sys.modules.get("torch"):
        states["torch"] = pack(torch.get_rng_state())
    return states


def restore(states: dict[str, Any]) -> None:
    """Put the generators back to where ``capture`` found them."""
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
    """A generator's state, uint8 [N] on the host, as hexadecimal digits."""
    return bytes(state.tolist()).hex()


def unpack(text: str) -> Any:
    """The tensor that ``pack`` was given."""
    import torch

    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
