"""Write the stacks of all processes of a run that makes no progress to a log file."""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from vimectl.runs import descendants
from vimectl.runs.process_watch import process_state
from vimectl.util.host import run_command

PY_SPY = Path(sysconfig.get_path("scripts")) / "py-spy"
# Seconds for one process. py-spy takes a fraction of a second, more on a busy machine.
TIMEOUT = 8.0
PARALLEL = 4


def write(log: Path, title: str, names: Mapping[int, str]) -> None:
    """Append the stacks of all descendants to ``log``; ``names`` maps process ids to names in the run."""
    processes = descendants.running()
    with ThreadPoolExecutor(PARALLEL) as pool:
        stacks = list(pool.map(_stack, processes))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}  {title}\n")
        for process, stack in zip(processes, stacks, strict=True):
            name = names.get(process.pid) or _command(process)
            state = process_state(process.pid) or "exited"
            file.write(f"\n--- {name} (pid {process.pid}), {state}\n{stack}\n")


def _stack(process: psutil.Process) -> str:
    """Return the Python stacks of all threads of a process, or why there are none."""
    # --nonblocking does not stop the process, and it works on one that is stopped.
    done = run_command([str(PY_SPY), "dump", "--nonblocking", "--pid", str(process.pid)], TIMEOUT)
    return done.stdout.strip() if done.code == 0 else f"no Python stack: {' '.join(done.stderr.split())}"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:3])[:100] or str(process.name())
    except psutil.Error:
        return "exited process"
