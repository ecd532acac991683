"""Where the processes of a run are that gets no further: their stacks, for the log."""

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
# For one process. py-spy needs a fraction of a second, more on a busy machine.
LIMIT_SECONDS = 8.0
AT_A_TIME = 4


def write(log: Path, why: str, names: Mapping[int, str]) -> None:
    """Append the stacks of all descendants to ``log``; ``names`` says what some of them are in the run."""
    living = descendants.living()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        stacks = list(pool.map(_stack, living))
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}  {why}\n")
        for process, stack in zip(living, stacks, strict=True):
            name = names.get(process.pid, "")
            file.write(f"\n--- {name or _program(process)} (pid {process.pid}), {_state(process)}\n{stack}\n")


def _stack(process: psutil.Process) -> str:
    """The Python stacks of all threads of a process, or why there are none."""
    # Not blocking: the process is not stopped for it, and one that is stopped can be looked at.
    command = [str(PY_SPY), "dump", "--nonblocking", "--pid", str(process.pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as e:
        return f"no stack: {e}"
    if done.returncode == 0:
        return done.stdout.strip()
    return f"no Python stack: {' '.join(done.stderr.split())}"


def _program(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:3])[:100] or str(process.name())
    except psutil.Error:
        return "gone meanwhile"


def _state(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return "gone"
