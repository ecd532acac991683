"""What an ended runtime means: the exit code, the reason, and whether to start it again."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import INTERRUPTED

from vimectl.runs import out_of_memory
from vimectl.runs.failures import DRIVER, Accidents, name
from vimectl.runs.pidfd import signal_name
from vimectl.runs.run_log import Journal
from vimectl.runs.supervised_command import Outcome

NO_ROOM = "No space left on device"
# What the runtime exits with when it was told to stop.
TOLD_TO_STOP = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Verdict:
    """``hint`` is the mend if the runtime gave one, ``process`` {role, rank, pid} the one to blame.

    ``again``: an accident, after which the same run may well succeed.
    """

    exit_code: int
    reason: str
    hint: str = ""
    process: dict[str, Any] | None = None
    again: bool = False


def judge(
    outcome: Outcome, journal: Journal, accidents: Accidents, kernel_kills: int, folders: Iterable[Path]
) -> Verdict:
    """Decide what one start of the runtime came to.

    Args:
        kernel_kills: how many processes the kernel killed meanwhile for lack of memory, anywhere.
        folders: where the run writes; when the disk is full, those without room are named.
    """
    cause = accidents.cause
    if outcome.signal is not None:
        return Verdict(INTERRUPTED, "interrupted")
    if accidents.abandoned and cause:
        return Verdict(1, cause.reason, process=cause.process)
    if outcome.code == 0 or journal.done:
        return Verdict(0, "finished")
    error = journal.error or {}
    message = str(error.get("message", ""))
    if "OutOfMemoryError" in str(error.get("kind", "")):  # Ray killed a worker, and says which and why
        return Verdict(1, message, process=cause.process if cause else None, again=True)
    # The kernel kills Ray's daemons with the driver, and they may be gone before it.
    driver_killed = outcome.by_itself and outcome.code == -signal.SIGKILL
    if cause and not driver_killed:
        return Verdict(1, cause.reason + _memory(cause.killed, kernel_kills), "", cause.process, again=True)
    if error:
        code = outcome.code if outcome.code in (1, 2, 3) else 1
        return Verdict(code, message + _disk(message, folders), str(error.get("hint", "")))
    driver = {"role": DRIVER, "rank": 0, "pid": outcome.pid}
    if outcome.code is None or outcome.code < 0:
        number = -(outcome.code or 0)
        words = f"was killed by {signal_name(number)}" if number else "cannot be ended"
        reason = f"{name(driver)} {words}" + _memory(number == signal.SIGKILL, kernel_kills)
        return Verdict(1, reason, process=driver, again=True)
    if outcome.code == TOLD_TO_STOP:
        return Verdict(1, f"{name(driver)} was ended by SIGTERM", process=driver, again=True)
    reason = f"the runtime ended with exit code {outcome.code} and no word why"
    return Verdict(1, reason + _disk(NO_ROOM, folders))


def _memory(killed: bool, kernel_kills: int) -> str:
    if not killed or not kernel_kills:
        return ""
    return "; probably out of memory: the kernel killed a process of this machine for it meanwhile"


def _disk(message: str, folders: Iterable[Path]) -> str:
    if NO_ROOM not in message or not (full := out_of_memory.full(folders)):
        return ""
    return f"; no room left in {', '.join(map(str, full))}"
