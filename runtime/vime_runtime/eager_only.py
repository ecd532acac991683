"""Keep compilers out of processes that compute eagerly, as all of a run on a CPU do.

torch and vLLM import Triton if they can. vLLM then warns that it has no backend for CPUs, and when the
interpreter exits, nanobind prints dozens of lines about objects that its library has not released. Triton
does not expose ``nanobind::set_leak_warnings``, which turns that off.

Megatron-core and vLLM decorate functions with ``torch.compile``. The decorator imports Inductor, a third of
what a trainer rank imports, even if ``TORCH_COMPILE_DISABLE`` is set. vLLM also imports Inductor to change it
(``_patch_inductor_fallback_allow_list`` in vllm/env_override.py, 0.32.0), but accepts an ImportError.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Passes the decision on to processes that ``multiprocessing`` spawns; ``gc_pause`` reads it there.
VARIABLE = "VIME_EAGER_ONLY"


def hide_triton() -> None:
    """Make ``import triton`` raise ImportError in this process and in those that it spawns."""
    os.environ[VARIABLE] = "1"
    _hide("triton")
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # it warns that there is no Triton


@contextmanager
def without_inductor() -> Iterator[None]:
    """Import libraries in the block as if there were no Inductor, if Triton is hidden.

    ``torch.compile`` returns functions as they are, from now on: a library may import others later.
    """
    if VARIABLE not in os.environ:
        yield
        return
    import torch

    torch.compile = _uncompiled
    lowering = "torch._inductor.lowering"
    _hide(lowering)
    try:
        yield
    finally:
        if lowering in sys.modules and sys.modules[lowering] is None:
            del sys.modules[lowering]


def inherit() -> None:
    """Hide Triton if the process that spawned this one does."""
    if VARIABLE in os.environ:
        hide_triton()


def _hide(module: str) -> None:
    """Make importing a module raise ImportError, unless it has been imported."""
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules.setdefault(module, None)


def _uncompiled(model: Callable[..., Any] | None = None, **unused: Any) -> Any:
    """Return a function or module as it is; without one, a decorator that does."""
    return _uncompiled if model is None else model
