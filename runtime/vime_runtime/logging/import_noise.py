"""Keep libraries that are installed but not used from filling the logs.

On a CPU nothing is compiled by Triton, but torch and vLLM import it if they can. vLLM then warns that it has
no backend for CPUs, and when the interpreter exits, nanobind prints dozens of lines about objects that its
library has not released. Triton does not expose ``nanobind::set_leak_warnings``, which turns that off.
"""

from __future__ import annotations

import logging
import os
import sys

# Passes the decision on to processes that ``multiprocessing`` spawns; ``gc_pause`` reads it there.
VARIABLE = "VIME_HIDE_TRITON"


def hide_triton() -> None:
    """Make ``import triton`` raise ImportError in this process and in those that it spawns."""
    os.environ[VARIABLE] = "1"
    modules: dict[str, object] = sys.modules  # type: ignore[assignment]
    modules.setdefault("triton", None)
    logging.getLogger("torch._library.triton").setLevel(logging.ERROR)  # it warns that there is no Triton


def inherit() -> None:
    """Do the same as the process that spawned this one."""
    if VARIABLE in os.environ:
        hide_triton()
