"""Each process of a run writes its own file in ``logs/``: whatever it prints, by whatever means.

The descriptors themselves lead to the file, so that the last words of a native crash are in it too. A
line ``--- 21:30:01 trainer 1: step 3 train`` is written whenever the run enters another phase.
"""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import re
import sys
import time
from pathlib import Path

from vime_runtime.logging.event_log import Callback

# Where the file of an engine is, for the worker processes that the engine starts.
VARIABLE = "VIME_ENGINE_LOG"
# What vLLM calls the processes of an engine's tensor-parallel ranks.
WORKER_NAME = re.compile(r"VllmWorker-(\d+)")

# Who this process is; the driver's output is led to its file by whoever starts it.
_name = "driver"


def take_over(run_dir: str, name: str) -> None:
    """Lead everything this process prints from now on to ``logs/<name>.log``, spaces as dashes.

    Another attempt of the same run goes on in the same file.
    """
    path = Path(run_dir) / "logs" / f"{name.replace(' ', '-')}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    os.environ[VARIABLE] = str(path)
    _lead_to(path, name)


def take_over_worker() -> None:
    """The same for a worker process of an engine, in a file beside the engine's; elsewhere nothing."""
    engine_log = os.environ.get(VARIABLE)
    worker = WORKER_NAME.fullmatch(multiprocessing.current_process().name)
    if engine_log and worker:
        engine = Path(engine_log)
        name = f"{engine.stem}-worker-{worker[1]}"
        _lead_to(engine.with_name(f"{name}.log"), name.replace("-", " "))


def mark(phase: str, step: int, detail: str = "") -> None:
    """Write the line that says where the run is into this process's log."""
    where = (f"step {step} " if step else "") + phase + (f", {detail}" if detail else "")
    sys.stdout.flush()
    os.write(2, f"--- {time.strftime('%H:%M:%S')} {_name}: {where}\n".encode())


class Marks(Callback):
    """Marks the phases in this process's own output."""

    def enter(self, phase: str, step: int, detail: str) -> None:
        """Mark the phase."""
        mark(phase, step, detail)


def _lead_to(path: Path, name: str) -> None:
    global _name
    _name = name
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    faulthandler.enable(file=2)
    logging.basicConfig(format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s", force=True)
