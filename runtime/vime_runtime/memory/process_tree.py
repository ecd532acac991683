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

    Source: /proc/<pid>/status (proc_pid_status(5)), less what the kernel may take at any time, MADV_FREE in
    madvise(2), from /proc/<pid>/smaps_rollup.
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
    taken = _sum(Path(f"/proc/{pid}/status"), COUNTED)
    return taken - _sum(Path(f"/proc/{pid}/smaps_rollup"), ("LazyFree:",))


def _sum(file: Path, names: tuple[str, ...]) -> int:
    """The bytes that these lines of a process say; 0 when it ended since it was listed."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))
