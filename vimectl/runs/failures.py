"""Notice what the runtime cannot report itself: a process of the run is gone, nothing moves, nobody watches.

The runtime names its processes in the journal once they exist. One that ends before the run takes itself
down is the cause of whatever follows; the runtime is given a moment to end in its own way and then no more.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from vimectl.runs import descendants, stack_dump
from vimectl.runs.pidfd import ProcessEnd
from vimectl.runs.process_identity import is_stopped
from vimectl.runs.run_log import Journal
from vimectl.runs.supervised_command import Stop

# How long the runtime may take to end by itself after it lost a process: its own words go to its log.
LOST_SECONDS = 3.0
# Looking up the sockets of a process takes a hundredth of a second.
SERVING_SECONDS = 1.0
# How long taking itself down may take: Ray waits long for daemons that are gone.
TEARDOWN_SECONDS = 5.0

# Engines are closed before the weights are saved, and killed when a run that is told to stop keeps its state.
WITHOUT_ENGINES = ("save", "stop")

# As the runtime calls its processes.
DRIVER = "runtime driver"
GCS = "GCS"
RAYLET = "raylet"
ACTORS = ("trainer rank", "engine")
CLOSED_EARLY = ("engine", "engine worker")
NUMBERED = ("trainer rank", RAYLET, *CLOSED_EARLY)
# Errors that say no more than that something is gone, in Ray's and vLLM's words.
LOSSES = ("Died", "Unavailable", "Crashed", "RaySystemError", "EngineDead", "WorkerError", "RpcError")


# A process as the journal has it, and its end.
Awaited = tuple[dict[str, Any], ProcessEnd]


@dataclass(frozen=True)
class Cause:
    """Why a run has to end: in words, and which process {role, rank, pid} when it is one.

    ``killed`` when it was SIGKILL, as the kernel does when memory is short.
    """

    reason: str
    process: dict[str, Any] | None = None
    killed: bool = False


class Accidents:
    """Looks at one start of the runtime. ``cause`` is what happened, ``abandoned`` that it was the launcher's
    end, None while all is well."""

    def __init__(
        self, journal: Journal, hang_seconds: float, stack_log: Path, launcher: dict[str, Any] | None = None
    ) -> None:
        """``launcher`` is {role, rank, pid} of the process that holds the other end of this one's stdin."""
        self.cause: Cause | None = None
        self.abandoned = False
        self._journal = journal
        self._hang_seconds = hang_seconds
        self._stack_log = stack_log
        self._launcher = launcher
        self._moved = time.monotonic()
        self._lost_at = 0.0
        self._ending_since: float | None = None
        self._known = 0
        self._ends: list[Awaited] = []
        self._awaited: list[Awaited] = []
        self._is_named = False
        self._asked_gcs_at = 0.0
        self._served: set[int] = set()
        self._poll = select.poll()
        if launcher:
            self._poll.register(0, select.POLLIN)

    def pause(self, seconds: float) -> None:
        """Wait, or until one of the processes ends."""
        self._poll.poll(seconds * 1000)

    def look(self) -> Stop | None:
        """Take in what has happened, and say whether the runtime has to be ended for it."""
        now = time.monotonic()
        ended = self._ended()
        if self._journal.read():
            self._moved = now
        self._await_new()
        # Judged by the journal as it is now: who was closed has ended after it said so, perhaps just before.
        lost = self._lost(ended)
        if lost and self.cause is None and self._explains(lost[0][1]):
            self.cause, self._lost_at = _death(*lost[0]), now
        if self.cause is None and not self._journal.ending and now > self._asked_gcs_at + SERVING_SECONDS:
            self._asked_gcs_at = now
            self._look_at_the_gcs(now)
        if self._is_abandoned():
            return Stop.GENTLY
        self._blame_the_raylet()
        if self._journal.ending:
            return self._look_at_the_end(now)
        if self.cause is not None:
            return Stop.NOW if now > self._lost_at + LOST_SECONDS else None
        if now > self._moved + self._hang_seconds:
            self.cause = self._hang()
            return Stop.NOW
        return None

    def close(self) -> None:
        """Await the processes no longer."""
        for _, end in self._ends:
            end.close()

    def _await_new(self) -> None:
        for entry in self._journal.processes[self._known :]:
            if entry["node"] == os.uname().nodename:
                self._await(entry)
        self._known = len(self._journal.processes)

    def _await(self, entry: dict[str, Any]) -> None:
        try:
            end = ProcessEnd(entry["pid"])
        except ProcessLookupError:  # gone before it was looked at
            if entry["role"] != DRIVER and self.cause is None and not self._journal.ending:
                self.cause, self._lost_at = Cause(f"{name(entry)} died", _process(entry)), time.monotonic()
            return
        self._ends.append((entry, end))
        self._awaited.append((entry, end))
        self._poll.register(end, select.POLLIN)

    def _ended(self) -> list[Awaited]:
        """Who has ended since the last look."""
        ended = [(entry, end) for entry, end in self._awaited if end.has_come()]
        for pair in ended:
            self._awaited.remove(pair)
            self._poll.unregister(pair[1])
        return ended

    def _lost(self, ended: list[Awaited]) -> list[Awaited]:
        """Those of them that the run did not close; those that were killed first."""
        # The driver is our child: its end is known without this, which only ends the pause.
        expected = (DRIVER, *CLOSED_EARLY) if self._journal.phase in WITHOUT_ENGINES else (DRIVER,)
        lost = [(entry, end) for entry, end in ended if entry["role"] not in expected]
        return sorted(lost, key=lambda pair: pair[1].signal() is None)

    def _look_at_the_gcs(self, now: float) -> None:
        """Told to end, Ray's GCS closes its port and stays for ever; the others notice after a minute."""
        for entry, end in self._awaited:
            if entry["role"] != GCS:
                continue
            if _listens(end.pid):
                self._served.add(end.pid)
            elif end.pid in self._served and not end.has_come():
                self.cause, self._lost_at = Cause(f"{name(entry)} stopped serving", _process(entry)), now

    def _explains(self, end: ProcessEnd) -> bool:
        """Whether a loss is why the run ends, or the run's end why the process is gone."""
        if not self._journal.ending:
            return True
        # Both came between two looks. Ray lets its processes exit when it goes, it does not kill them.
        error = self._journal.error
        if error is None or error.get("pid") is not None or self._ending_since is not None:
            return False
        return end.signal() is not None or any(word in error["kind"] for word in LOSSES)

    def _blame_the_raylet(self) -> None:
        """A raylet that is told to end takes all its actors along, and they are gone first."""
        ended = [(entry, end) for entry, end in self._ends if end.has_come()]
        actors = {entry["pid"]: end.signal() for entry, end in ended if entry["role"] in ACTORS}
        raylet = next((pair for pair in ended if pair[0]["role"] == RAYLET), None)
        if not raylet or not self.cause or not self.cause.process or self.cause.process["pid"] not in actors:
            return
        # Nobody else ends a raylet until the run has said that it ends; then it goes with the rest of Ray.
        killed = [pid for pid, signum in actors.items() if signum == signal.SIGKILL]
        if not self._journal.ending or (len(killed) > 1 and self.cause.process["pid"] in killed):
            self.cause = _death(*raylet)

    def _is_abandoned(self) -> bool:
        if self._launcher and select.select([0], [], [], 0)[0] and not os.read(0, 1):
            self.abandoned = True
            self.cause = Cause(f"{name(self._launcher)} was killed", self._launcher)
        return self.abandoned

    def _look_at_the_end(self, now: float) -> Stop | None:
        self._blame_whom_the_runtime_names()
        if self._ending_since is None:
            self._ending_since = now
            # Ray declares a daemon dead that does not answer: it may only have been stopped.
            if self.cause is None and self._journal.error and (stopped := self._stopped()):
                self.cause = Cause(f"{_names(stopped)} did not go on: stopped", _process(stopped[0]))
        return Stop.NOW if now > self._ending_since + TEARDOWN_SECONDS else None

    def _blame_whom_the_runtime_names(self) -> None:
        """Ray may report a death before the process has ended: how it did is known a little later."""
        error = self._journal.error
        if error is None or (self.cause is not None and not self._is_named):
            return
        pid = error.get("pid")
        for entry, end in self._ends:
            # Somebody died and it was no actor: a raylet that was asked to goes in good order, after it has
            # said so to everybody.
            node = pid is None and "Died" in error["kind"] and entry["role"] == RAYLET and end.has_come()
            if entry["pid"] == pid or node:
                self.cause, self._is_named = _death(entry, end), True
                return

    def _hang(self) -> Cause:
        """Write down where everybody is and name who is stopped."""
        reason = f"no progress for {self._hang_seconds:g} s in phase {self._journal.phase}"
        stopped = self._stopped()
        if stopped:
            reason += f"; stopped: {_names(stopped)}"
        names = {entry["pid"]: f"{entry['role']} {entry['rank']}" for entry in self._journal.processes}
        stack_dump.write(self._stack_log, reason, names)
        return Cause(reason, _process(stopped[0]) if stopped else None)

    def _stopped(self) -> list[dict[str, Any]]:
        """Who is stopped, as {role, rank, pid}; first those that the runtime named."""
        named = {entry["pid"]: entry for entry in self._journal.processes}
        pids = [process.pid for process in descendants.living() if is_stopped(process.pid)]
        stopped = [named.get(pid, {"role": "process", "rank": 0, "pid": pid}) for pid in pids]
        return sorted(stopped, key=lambda entry: entry["pid"] not in named)


def name(process: dict[str, Any]) -> str:
    """``trainer rank 1 (pid 123)``; what there is only one of has no number."""
    number = f" {process['rank']}" if process["role"] in NUMBERED else ""
    return f"{process['role']}{number} (pid {process['pid']})"


def _listens(pid: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(connection.status == psutil.CONN_LISTEN for connection in connections)


def _names(entries: Iterable[dict[str, Any]]) -> str:
    return ", ".join(map(name, entries))


def _process(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("role", "rank", "pid")}


def _death(entry: dict[str, Any], end: ProcessEnd) -> Cause:
    return Cause(f"{name(entry)} {end.words()}", _process(entry), killed=end.signal() == signal.SIGKILL)
