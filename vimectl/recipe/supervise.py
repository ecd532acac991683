"""Run one command to its end and leave nothing of it behind, however it ends.

The command gets a session of its own, so Ctrl-C reaches this process alone. On a signal, or
when the command has ended by itself: ask it to stop, wait a little, kill every descendant,
remove what they had in /dev/shm.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from vimectl.recipe import processes
from vimectl.recipe.shared_memory import SharedMemoryWatch

# Together well under the 15 s within which a stopped run must be gone.
GRACE_SECONDS = 5.0
KILL_SECONDS = 5.0

LOOK_SECONDS = 0.25
# Walking all processes and their page tables costs tens of milliseconds.
SURVEY_SECONDS = 2.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    ``code`` is its exit status, negative for a signal, None when it cannot be ended; ``signal`` the one that
    told *us* to stop; ``unkillable`` the ids of what still sleeps in the kernel.
    """

    code: int | None
    signal: int | None
    seconds: float
    peak_bytes: int
    unkillable: list[int]


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    look: Callable[[], None],
) -> Outcome:
    """Run ``command`` until it ends or SIGINT, SIGTERM or SIGHUP arrives here.

    Args:
        stdout, stderr: files its output is appended to; they may be the same.
        look: called several times a second while it runs.
    """
    processes.adopt_orphans()
    began = time.monotonic()
    shm = SharedMemoryWatch()
    peak = 0
    next_survey = began
    with _stop_requests() as requests, stdout.open("ab") as out, stderr.open("ab") as err:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            while child.poll() is None and not requests:
                look()
                shm.look()
                if time.monotonic() >= next_survey:
                    processes.reap(besides=child.pid)
                    shm.look(again=True)
                    peak = max(peak, processes.resident_bytes())
                    next_survey = time.monotonic() + SURVEY_SECONDS
                time.sleep(LOOK_SECONDS)
        finally:
            unkillable = _end(child, shm, requests)
            look()
    return Outcome(
        child.returncode, requests[0] if requests else None, time.monotonic() - began, peak, unkillable
    )


def _end(child: subprocess.Popen[bytes], shm: SharedMemoryWatch, requests: list[int]) -> list[int]:
    """Stop the command if it still runs, then everything that descends from it."""
    asked = len(requests)
    if child.poll() is None:
        child.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        # A second Ctrl-C means: now.
        while child.poll() is None and time.monotonic() < deadline and len(requests) == asked:
            time.sleep(LOOK_SECONDS)
    shm.look(again=True)
    unkillable = processes.end_all(besides=child.pid, seconds=KILL_SECONDS)
    child.poll()
    shm.remove()
    return unkillable


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """Collect the signals that ask this process to stop, instead of being stopped by them."""
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
