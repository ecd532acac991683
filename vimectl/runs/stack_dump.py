"""Write the stacks of all processes of a run that makes no progress to a log file."""

from __future__ import annotations

import subprocess
import sysconfig
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from vimectl.runs import descendants

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
            command, status = _command_and_status(process)
            file.write(f"\n--- {names.get(process.pid, command)} (pid {process.pid}), {status}\n{stack}\n")


def _stack(process: psutil.Process) -> str:
    """Return the Python stacks of all threads of a process, or why there are none."""
    # --nonblocking does not stop the process, and it works on one that is stopped.
    command = [str(PY_SPY), "dump", "--nonblocking", "--pid", str(process.pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"no stack: {e}"
    if done.returncode == 0:
        return done.stdout.strip()
    return f"no Python stack: {' '.join(done.stderr.split())}"


def _command_and_status(process: psutil.Process) -> tuple[str, str]:
    try:
        return " ".join(process.cmdline()[:3])[:100] or str(process.name()), str(process.status())
    except psutil.Error:
        return "exited process", "exited"
