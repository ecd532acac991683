"""Import heavy modules while the cyclic garbage collector is disabled.

Importing torch, transformers and vLLM creates a million objects that live as long as the process. During the
import the collector traverses them again and again, which takes a fifth of the time.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the collector inside the block. Afterwards it ignores the objects that exist then."""
    gc.disable()
    try:
        yield
    finally:
        resume_gc()


def resume_gc() -> None:
    """Enable the collector, for objects created from now on."""
    gc.freeze()
    gc.enable()


@contextmanager
def children_gc_paused() -> Iterator[None]:
    """Let processes that ``multiprocessing`` spawns inside the block start with the collector disabled.

    They call ``resume_gc`` themselves. A spawned process first runs its parent's main module, which it finds
    by ``__spec__``. The main module of a Ray actor is not needed there, so this module takes its place.
    """
    main = sys.modules["__main__"]
    before = main.__spec__
    main.__spec__ = importlib.util.find_spec(__name__)
    try:
        yield
    finally:
        main.__spec__ = before


if __name__ == "__mp_main__":  # the name under which multiprocessing runs the main module
    from vime_runtime import eager_only

    gc.disable()
    eager_only.inherit()
