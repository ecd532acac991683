"""Redirect everything that a process prints to its log file in ``logs/``.

The file descriptors 1 and 2 are redirected, so the last output of a native crash is in the file too. A line
``--- 21:30:01 trainer 1: step 3 train`` marks each phase of the run.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import time

from vime_runtime.spec.process_roles import log_name
from vime_runtime.spec.run_paths import RunPaths

# The name of this process. The output of the driver is redirected by the process that starts it.
_name = "driver"


def redirect_output(paths: RunPaths, name: str) -> None:
    """Redirect the output of this process to the log of ``name`` ("trainer 1"). A resumed run appends."""
    global _name
    _name = name
    paths.logs.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(paths.logs / log_name(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    faulthandler.enable(file=2)
    logging.basicConfig(format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s", force=True)


def mark_phase(phase: str, step: int, detail: str = "") -> None:
    """Write the line that marks a phase to this process's log."""
    where = (f"step {step} " if step else "") + phase + (f", {detail}" if detail else "")
    sys.stdout.flush()
    os.write(2, f"--- {time.strftime('%H:%M:%S')} {_name}: {where}\n".encode())
