"""This process and its descendants: how much memory they take, by the kernel's count, and how they end."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

# Memory that exists only because of the process; mapped files (libraries) are shared and not counted.
COUNTED = ("RssAnon:", "RssShmem:")


def resident_bytes() -> int:
    """Anonymous and shared-memory bytes of this process and its descendants.

    Source: /proc/<pid>/status (proc_pid_status(5)); cheap enough for every step, unlike smaps.
    """
    own = psutil.Process()
    return sum(_resident(process.pid) for process in [own, *own.children(recursive=True)])


def own_pids() -> list[int]:
    """The ids of this process and its descendants."""
    return [os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))]


def pid_space() -> str:
    """Where process ids of this process are those of the same processes: boot of the machine, namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def end(processes: Iterable[psutil.Process], seconds: float, patience: float = 5.0) -> None:
    """Return when the processes are gone; after ``seconds`` they are killed.

    One that has ended but was not collected by its parent counts as gone: its memory is free. One that
    still sleeps in the kernel after another ``patience`` seconds is waited for no longer.
    """
    left = list(processes)
    began = time.monotonic()
    while left := [process for process in left if _lives(process)]:
        waited = time.monotonic() - began
        if waited > seconds + patience:
            return
        if waited > seconds:
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended since it was listed
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(COUNTED))
