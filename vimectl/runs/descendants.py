"""The descendants of this process: keep them ours, measure them, end all of them.

Processes are found by descent only, never by name. A process that detaches itself (double
fork, setsid, its parent's death) would otherwise move to PID 1 and be lost: as a *child
subreaper* (prctl(2)) this process inherits such orphans instead. Whoever calls
``end_all`` must therefore have no other children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies. Raises OSError when the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def living() -> list[psutil.Process]:
    """All descendants that still run; zombies are not among them."""
    return [process for process in psutil.Process().children(recursive=True) if _lives(process)]


def reap(besides: int) -> None:
    """Collect adopted orphans that have ended. ``besides`` is a child that somebody else waits for."""
    for child in psutil.Process().children():
        if child.pid != besides and not _lives(child):
            with contextlib.suppress(ChildProcessError):  # it was collected meanwhile
                os.waitpid(child.pid, os.WNOHANG)


def end_all(besides: int, seconds: float) -> list[int]:
    """Kill every descendant, and again those that were born meanwhile, until none is left.

    Returns:
        the ids of processes that outlived ``seconds``: they sleep in the kernel and cannot be killed.
    """
    deadline = time.monotonic() + seconds
    while processes := living():
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        reap(besides)
        if time.monotonic() > deadline:
            return [process.pid for process in living()]
        time.sleep(0.02)
    reap(besides)
    return []


def resident_bytes() -> int:
    """Memory of this process and all descendants, by the kernel's proportional count: shared pages once.

    Source: the ``Pss`` line of /proc/<pid>/smaps_rollup (proc_pid_smaps(5)), in bytes.
    """
    return sum(_pss(pid) for pid in [os.getpid(), *(process.pid for process in living())])


def _pss(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0  # it ended since it was listed
    return next((int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
