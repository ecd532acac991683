"""Run one command to its end and leave no process and no shared memory behind, however it ends.

The command runs in its own session, so Ctrl-C reaches this process only. It gets SIGTERM if this process is
killed. After a signal, a request of the caller, or the exit of the command: send SIGTERM, wait, kill all
descendants, remove their files in /dev/shm.
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

from vimectl.runs import descendants
from vimectl.runs.descendants import SharedMemoryWatch

# Seconds that a command gets to stop. A run must have exited within 15 s of a stop request.
SHUTDOWN_TIMEOUT = 10.0
KILL_TIMEOUT = 3.0
# Seconds that a supervisor needs beyond ``cluster.shutdown_timeout`` to stop.
SHUTDOWN_MARGIN = 2 * KILL_TIMEOUT

CHECK_INTERVAL = 0.25
# While a command shuts down, its processes are short-lived.
SHUTDOWN_CHECK_INTERVAL = 0.05
# Seconds between two measurements; reading the page tables of all processes takes tens of milliseconds.
MEMORY_INTERVAL = 2.0


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended.

    ``code`` is its exit status, negative for a signal, None if it cannot be killed. ``by_itself``: it exited
    before a stop request. ``signal`` is the first stop request of *this* process. ``unkillable`` are the ids
    of processes that sleep in the kernel.
    """

    pid: int
    code: int | None
    by_itself: bool
    signal: int | None
    peak_bytes: int
    unkillable: list[int]


def run_supervised(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: Path,
    stderr: Path,
    check: Callable[[], bool | None],
    stop_signals: list[int],
    shutdown_timeout: float = SHUTDOWN_TIMEOUT,
    wait: Callable[[float], object] = time.sleep,
    shm_log: Path | None = None,
) -> CommandOutcome:
    """Run ``command`` until it exits, ``check`` returns True, or there is a signal in ``stop_signals``.

    Args:
        stdout, stderr: files to append its output to; they may be the same.
        check: called several times a second while the command runs. True: kill it, without SIGTERM before.
        stop_signals: the list that ``collect_stop_signals`` fills.
        shutdown_timeout: seconds between SIGTERM and SIGKILL.
        wait: waits for that many seconds, or less if there is something to check.
        shm_log: see ``SharedMemoryWatch``.
    """
    descendants.adopt_orphans()
    shm = SharedMemoryWatch(shm_log)
    peak = 0
    next_measurement = time.monotonic()
    kill: bool | None = False
    with stdout.open("ab") as out, stderr.open("ab") as err:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            preexec_fn=descendants.terminate_with_parent(),
        )
        try:
            while child.poll() is None and not stop_signals and not (kill := check()):
                shm.update()
                if time.monotonic() >= next_measurement:
                    descendants.reap(except_pid=child.pid)
                    shm.update(all_files=True)
                    peak = max(peak, descendants.resident_bytes())
                    next_measurement = time.monotonic() + MEMORY_INTERVAL
                wait(CHECK_INTERVAL)
            if not kill and (child.poll() or 0) > 0:
                # Ray ends the driver without a message when its raylet has exited: look for that exit.
                time.sleep(CHECK_INTERVAL)
                check()
        finally:
            by_itself = child.poll() is not None
            if not kill:
                _terminate(child, shm, stop_signals, shutdown_timeout)
            shm.update(all_files=True)
            unkillable = descendants.kill_all(except_pid=child.pid, timeout=KILL_TIMEOUT)
            child.poll()
            shm.remove_unused()
    first_signal = stop_signals[0] if stop_signals else None
    return CommandOutcome(child.pid, child.returncode, by_itself, first_signal, peak, unkillable)


@contextmanager
def collect_stop_signals() -> Iterator[list[int]]:
    """Append SIGINT, SIGTERM and SIGHUP to the yielded list instead of ending this process."""
    received: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:
        received.append(signum)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _terminate(
    child: subprocess.Popen[bytes], shm: SharedMemoryWatch, stop_signals: list[int], timeout: float
) -> None:
    """Send SIGTERM if the command runs, and wait for its exit. A second Ctrl-C ends the wait."""
    received = len(stop_signals)
    if child.poll() is not None:
        return
    child.terminate()
    deadline = time.monotonic() + timeout
    while child.poll() is None and time.monotonic() < deadline and len(stop_signals) == received:
        shm.update()  # an engine that is being built creates files until it is killed
        time.sleep(SHUTDOWN_CHECK_INTERVAL)
