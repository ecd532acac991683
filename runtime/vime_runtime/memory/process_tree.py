"""This process and its descendants: their memory and ids, and how to end them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

# Memory that exists only because of the process. Mapped files, such as libraries, are shared and not counted.
COUNTED = ("RssAnon:", "RssShmem:")


def resident_bytes() -> int:
    """Return the anonymous and shared-memory bytes of this process and its descendants.

    Source: /proc/<pid>/status (proc_pid_status(5)), which, unlike smaps, is cheap enough for every step.
    """
    return sum(map(_resident, own_pids()))


def own_pids() -> list[int]:
    """Return the ids of this process and its descendants."""
    return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]


def wait_or_kill(processes: Iterable[psutil.Process], seconds: float, patience: float = 5.0) -> None:
    """Wait until the processes have exited; kill them after ``seconds``.

    A zombie counts as exited: its memory is free. The wait ends ``patience`` seconds after the kill: a
    process that is still there sleeps in the kernel.
    """
    left = list(processes)
    began = time.monotonic()
    while left := [process for process in left if _is_alive(process)]:
        waited = time.monotonic() - began
        if waited > seconds + patience:
            return
        if waited > seconds:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it exited after it was listed
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(COUNTED))
