"""Imports that take seconds, without Python's collector of cycles looking through them all the while.

Torch, transformers and vLLM make a million objects that live as long as the process. The collector goes
through them again and again as they grow in number: a fifth of what importing takes.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import inside: what comes into being is never looked at for garbage, neither now nor later."""
    gc.disable()
    try:
        yield
    finally:
        collect_again()


def collect_again() -> None:
    """Turn the collector on, for what will come."""
    gc.freeze()
    gc.enable()


@contextmanager
def children_uncollected() -> Iterator[None]:
    """Processes that ``multiprocessing`` spawns inside begin without the collector, till ``collect_again``.

    A spawned process first runs its parent's main module once more, and finds it by ``__spec__``. That of a
    Ray actor is of no use to it.
    """
    main = sys.modules["__main__"]
    before = main.__spec__
    main.__spec__ = importlib.util.find_spec("vime_runtime.uncollected_process")
    try:
        yield
    finally:
        main.__spec__ = before
