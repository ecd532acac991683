"""Run one command to its end and leave nothing of it behind, however it ends.

The command gets a session of its own, so Ctrl-C reaches this process alone. On a signal, when whoever looks
after it says so, or when the command has ended by itself: ask it to stop, wait a little, kill every
descendant, remove what they had in /dev/shm.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import FrameType

from vimectl.runs import descendants
from vimectl.runs.shared_memory import SharedMemoryWatch

# How long a command that is told to stop may take. With the rest it is well under the 15 s within
# which a stopped run must be gone.
GRACE_SECONDS = 10.0
KILL_SECONDS = 3.0

LOOK_SECONDS = 0.25
# While a command stops its processes come and go quickly.
ASK_SECONDS = 0.05
# Walking all processes and their page tables costs tens of milliseconds.
SURVEY_SECONDS = 2.0


class Stop(Enum):
    """What whoever looks after a command may want: that it is asked to stop, or that it is gone."""

    GENTLY = "gently"
    NOW = "now"


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    ``code`` is its exit status, negative for a signal, None when it cannot be ended; ``by_itself``: before it
    was asked to; ``signal`` the one that told *us* to stop; ``unkillable`` the ids of what still sleeps in
    the kernel.
    """

    pid: int
    code: int | None
    by_itself: bool
    signal: int | None
    peak_bytes: int
    unkillable: list[int]


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    look: Callable[[], Stop | None],
    requests: list[int],
    grace_seconds: float = GRACE_SECONDS,
    pause: Callable[[float], object] = time.sleep,
) -> Outcome:
    """Run ``command`` until it ends, ``look`` wants it to, or a signal is among ``requests``.

    Args:
        stdout, stderr: files its output is appended to; they may be the same.
        look: called several times a second while it runs.
        requests: what ``stop_requests`` collects.
        grace_seconds: how long it may take to stop when it is asked to.
        pause: waits that many seconds, or less when there is something to look at.
    """
    descendants.adopt_orphans()
    shm = SharedMemoryWatch()
    peak = 0
    next_survey = time.monotonic()
    wanted = None
    with stdout.open("ab") as out, stderr.open("ab") as err:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            while child.poll() is None and not requests and (wanted := look()) is None:
                shm.look()
                if time.monotonic() >= next_survey:
                    descendants.reap(besides=child.pid)
                    shm.look(again=True)
                    peak = max(peak, descendants.resident_bytes())
                    next_survey = time.monotonic() + SURVEY_SECONDS
                pause(LOOK_SECONDS)
            if wanted is None and (child.poll() or 0) > 0:
                time.sleep(LOOK_SECONDS)
                look()  # Ray ends the driver without a word when it has lost its raylet: just before, then
        finally:
            by_itself = child.poll() is not None
            if wanted is not Stop.NOW:
                _ask(child, shm, requests, grace_seconds)
            shm.look(again=True)
            unkillable = descendants.end_all(besides=child.pid, seconds=KILL_SECONDS)
            child.poll()
            shm.remove()
    told = requests[0] if requests else None
    return Outcome(child.pid, child.returncode, by_itself, told, peak, unkillable)


def _ask(child: subprocess.Popen[bytes], shm: SharedMemoryWatch, requests: list[int], seconds: float) -> None:
    """Ask the command to stop if it still runs, and wait for it a while."""
    asked = len(requests)
    if child.poll() is not None:
        return
    child.terminate()
    deadline = time.monotonic() + seconds
    # A second Ctrl-C means: now.
    while child.poll() is None and time.monotonic() < deadline and len(requests) == asked:
        shm.look()  # an engine that is being built goes on making files until it is ended
        time.sleep(ASK_SECONDS)


@contextmanager
def stop_requests() -> Iterator[list[int]]:
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
