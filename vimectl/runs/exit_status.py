"""Classify how the runtime ended: exit code, reason, and whether to start it again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import INTERRUPTED, TERMINATED
from vime_runtime.spec.process_roles import DRIVER, process_name

from vimectl.runs.process_watch import exit_text
from vimectl.runs.run_log import RunLog
from vimectl.runs.supervised_command import CommandOutcome

NO_SPACE = "No space left on device"
# A disk with less free space than this counts as full.
FULL_BYTES = 1024**2


@dataclass(frozen=True)
class ExitStatus:
    """How a run ended.

    ``hint``, ``where`` and ``traceback`` are from the runtime's error, or empty. ``process`` is the
    {role, rank, pid} to blame. ``restartable``: a process was lost, or the run hangs, so the same run may
    succeed when it is started again. ``killed``: the process got SIGKILL, for example from the kernel when
    memory is short.
    """

    exit_code: int
    reason: str
    hint: str = ""
    process: dict[str, Any] | None = None
    restartable: bool = False
    killed: bool = False
    where: str = ""
    traceback: str = ""


def blame(process: Mapping[str, Any], how: str, restartable: bool = True, killed: bool = False) -> ExitStatus:
    """Return the status of a run that fails because of a process, with ``how`` that process ended."""
    entry = {key: process[key] for key in ("role", "rank", "pid")}
    reason = f"{process_name(entry)} {how}"
    return ExitStatus(1, reason, process=entry, restartable=restartable, killed=killed)


def classify(
    outcome: CommandOutcome,
    run_log: RunLog,
    cause: ExitStatus | None,
    oom_kills: int,
    folders: Iterable[Path],
) -> ExitStatus:
    """Classify the end of one start of the runtime.

    Args:
        cause: the failure that the runtime cannot report itself.
        oom_kills: how many processes of the machine the kernel killed for lack of memory during the run.
        folders: where the run writes. If a write failed for lack of space, the reason names the full ones.
    """
    if outcome.signal is not None:
        return ExitStatus(INTERRUPTED, "interrupted")
    if outcome.code == 0 or run_log.done:
        return ExitStatus(0, "finished")
    error = run_log.error or {}
    message = str(error.get("message", ""))
    # Ray killed a worker and says which one and why. The error of a device has the same name.
    if error.get("lost_peer") and "OutOfMemoryError" in str(error.get("kind", "")):
        return ExitStatus(1, message, process=cause.process if cause else None, restartable=True)
    # When the kernel kills Ray's daemons along with the driver, they may exit before the driver does.
    if not cause or (outcome.by_itself and outcome.code == -signal.SIGKILL):
        if error:
            code = outcome.code if outcome.code in (1, 2, 3) else 1
            return ExitStatus(
                code,
                message + _disk_full(message, folders),
                str(error.get("hint", "")),
                restartable=bool(error.get("lost_peer")),
                where=str(error.get("where", "")),
                traceback=str(error.get("traceback", "")),
            )
        cause = _exit_of_driver(outcome)
    if not cause:
        reason = f"the runtime ended with exit code {outcome.code} without an error message"
        return ExitStatus(1, reason + _disk_full(NO_SPACE, folders))
    if cause.killed and oom_kills:
        out_of_memory = "out of memory: the kernel killed a process of this machine for it during the run"
        return replace(cause, reason=f"{cause.reason}; probably {out_of_memory}")
    return cause


def _exit_of_driver(outcome: CommandOutcome) -> ExitStatus | None:
    """Blame the driver, unless it ended by itself with an exit code."""
    if outcome.code is None:
        how = "cannot be killed"
    elif outcome.code < 0:
        how = exit_text(outcome.code)
    elif outcome.code == TERMINATED:
        how = "was ended by SIGTERM"
    else:
        return None
    driver = {"role": DRIVER, "rank": 0, "pid": outcome.pid}
    return blame(driver, how, killed=outcome.code == -signal.SIGKILL)


def kernel_oom_kills(vmstat: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel has killed for lack of memory since boot; proc_vmstat(5).

    The count covers the whole machine and all control groups, and does not say which processes.
    """
    try:
        lines = vmstat.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _disk_full(message: str, folders: Iterable[Path]) -> str:
    full = [str(folder) for folder in folders if _is_full(folder)] if NO_SPACE in message else []
    return f"; no space left in {', '.join(full)}" if full else ""


def _is_full(folder: Path) -> bool:
    """Return True if this user has no space or no inode left on the disk of a folder."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False  # the folder has been removed
    return disk.f_bavail * disk.f_frsize < FULL_BYTES or bool(disk.f_files and disk.f_favail == 0)
