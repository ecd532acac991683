"""Detect the failures that the runtime cannot report itself, and decide when to end it.

The runtime writes the ids of its processes to the event log as soon as they exist. A process that exits
before the run shuts down is the cause of everything that follows. The runtime then gets a few seconds to end
by itself, because its own error message goes to its log, and is killed after that.

Every rule is one method of ``FailureMonitor``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from vime_runtime.spec import events
from vime_runtime.spec.process_roles import (
    DRIVER,
    ENGINE,
    ENGINE_WORKER,
    ENGINE_WORKER_SERVER,
    GCS,
    RAY_DAEMONS,
    RAYLET,
    TRAINER,
    process_name,
)

from vimectl.runs import descendants, stack_dump
from vimectl.runs.exit_status import ExitStatus, blame
from vimectl.runs.process_watch import WatchedProcess, exit_text, process_state
from vimectl.runs.run_log import RunLog

# Seconds that the runtime gets to end by itself after it lost a process.
LOST_PROCESS_TIMEOUT = 3.0
# Seconds that it gets to shut down: Ray waits long for daemons that have exited.
TEARDOWN_TIMEOUT = 5.0
# Seconds between two looks at the GCS. Reading the sockets of a process takes a hundredth of a second.
GCS_INTERVAL = 1.0

# Engines are closed before the model is saved, and killed when a run saves its state after a stop request.
PHASES_WITHOUT_ENGINES = (events.SAVE, events.STOP)
ENGINE_ROLES = (ENGINE, ENGINE_WORKER, ENGINE_WORKER_SERVER)
ACTOR_ROLES = (TRAINER, ENGINE)


class FailureMonitor:
    """Watch one start of the runtime. ``cause`` is the first failure, None while there is none."""

    def __init__(self, run_log: RunLog, hang_timeout: float, stack_log: Path) -> None:
        """Start to watch.

        Args:
            hang_timeout: seconds without a new event or metric after which the run counts as hung.
            stack_log: file for the stacks of a run that hangs.
        """
        self.cause: ExitStatus | None = None
        self._processes: list[WatchedProcess] = []  # those of the event log that are on this machine
        self._running: list[WatchedProcess] = []
        self._run_log = run_log
        self._stack_log = stack_log
        self._known_processes = 0
        self._hang_timeout = hang_timeout
        self._progress_at = time.monotonic()
        self._gcs_probed_at = 0.0
        self._serving_gcs: set[int] = set()  # process ids
        self._failed_at = 0.0
        self._teardown_began_at: float | None = None
        self._runtime_named_cause = False

    def wait(self, seconds: float) -> None:
        """Wait for that time, or until a process exits."""
        select.select(self._running, [], [], seconds)

    def close(self) -> None:
        """Stop watching."""
        for process in self._processes:
            process.close()

    def check(self) -> bool:
        """Examine what happened since the last call; return True if the runtime must be killed."""
        now = time.monotonic()
        # Exits first: the run writes that it closes a process before that process exits.
        exited = [process for process in self._running if process.has_exited]
        self._running = [process for process in self._running if process not in exited]
        if self._run_log.read():
            self._progress_at = now
        unseen = self._watch_new_processes()
        self._watch_starting_daemons()
        if self.cause is None:
            if self._run_log.error or self._run_log.ending:
                self.cause = self._lost_before_error()
            else:
                self.cause = unseen or self._lost_process(exited) or self._gcs_stopped_serving(now)
            self._failed_at = now
        self._prefer_error_of_runtime()
        self._blame_raylet_for_its_actors()
        if self._run_log.ending:
            return self._check_shutdown(now)
        if self.cause is not None:
            return now > self._failed_at + LOST_PROCESS_TIMEOUT
        if now > self._progress_at + self._hang_timeout:
            if not self._run_log.error:
                self.cause = self._hang()
            return True
        return False

    def _watch_new_processes(self) -> ExitStatus | None:
        """Watch the new processes of the event log that are on this machine; blame one that has exited."""
        new = self._run_log.processes[self._known_processes :]
        self._known_processes = len(self._run_log.processes)
        cause = None
        for entry in new:
            if not _is_here(entry) or self._is_watched(entry["pid"]):
                continue
            if not self._watch(entry) and not self._was_closed(entry) and not self._run_log.ending:
                cause = cause or blame(entry, "died")
        return cause

    def _watch_starting_daemons(self) -> None:
        """Watch the daemons of Ray from the moment they exist.

        ``ray.init`` waits half a minute for a daemon that has exited, and the runtime records them after it.
        A daemon that has exited is found too: it stays a zombie until the driver shuts Ray down.
        """
        processes = self._run_log.processes
        drivers = [entry for entry in processes if entry["role"] == DRIVER and _is_here(entry)]
        started = any(entry["role"] in (GCS, TRAINER) for entry in processes)
        if not drivers or started or self._run_log.phase != events.START_UP:
            return
        with contextlib.suppress(psutil.NoSuchProcess):  # it has exited: the next check finds the others
            for child in psutil.Process(drivers[-1]["pid"]).children():
                role = RAY_DAEMONS.get(child.name())
                if role and not self._is_watched(child.pid):
                    self._watch(drivers[-1] | {"role": role, "rank": 0, "pid": child.pid})

    def _is_watched(self, pid: int) -> bool:
        return any(process.pid == pid for process in self._processes)

    def _watch(self, entry: dict[str, Any]) -> bool:
        """Watch a process of this machine; return False if it has exited and was collected."""
        try:
            process = WatchedProcess(entry)
        except ProcessLookupError:
            return False
        self._processes.append(process)
        self._running.append(process)
        return True

    def _lost_process(self, exited: list[WatchedProcess]) -> ExitStatus | None:
        """Blame a process that exited although the run did not close it; of several, one that was killed.

        The driver exits soon after its raylet, but not after its GCS, and the kernel kills Ray's daemons
        when the driver exits (PR_SET_PDEATHSIG, ``ray._private.services``).
        """
        lost = [process for process in exited if not self._was_closed(process.entry)]
        lost.sort(key=lambda process: (not process.was_killed, process.role == GCS))
        return _exit_of(lost[0]) if lost else None

    def _lost_before_error(self) -> ExitStatus | None:
        """Blame a process that had exited when the runtime recorded its error.

        The run has begun to shut down since then, which ends all other processes.
        """
        error = self._run_log.error or {}
        pids = error.get("exited", [])
        watched = [process for process in self._processes if process.pid in pids]
        # First the actor that Ray reports as dead: the workers of an engine exit because of it.
        watched.sort(key=lambda process: process.pid != error.get("pid"))
        if cause := self._lost_process(watched):
            return cause
        gone = [entry for entry in self._run_log.processes if entry["pid"] in pids and _is_here(entry)]
        gone = [entry for entry in gone if not self._was_closed(entry)]
        return blame(gone[0], "died") if gone and error.get("lost_peer") else None

    def _prefer_error_of_runtime(self) -> None:
        """Drop a cause that is a consequence: an exit that the process or a SIGTERM made, before an error.

        A process that fails, or whose peer failed, exits while its exception is on the way to the driver.
        An error that only reports the loss of a process does not say more than the exit of that process.
        """
        error = self._run_log.error
        if not error or error.get("lost_peer") or not self.cause or not self.cause.process:
            return
        blamed = [process for process in self._processes if process.pid == self.cause.process["pid"]]
        if any(process.has_exited and not process.was_killed for process in blamed):
            self.cause = None

    def _was_closed(self, entry: Mapping[str, Any]) -> bool:
        """Return True if the run itself ends this process."""
        role, phase = entry["role"], self._run_log.phase
        # The driver is a child of this process: its exit is known without a watch.
        if role == DRIVER or entry["pid"] in self._run_log.closed:
            return True
        return role in ENGINE_ROLES and phase in PHASES_WITHOUT_ENGINES

    def _gcs_stopped_serving(self, now: float) -> ExitStatus | None:
        """Blame a GCS that has closed its port.

        After SIGTERM the GCS closes its port and never exits. The rest of Ray notices only after a minute.
        """
        if self._run_log.ending or now <= self._gcs_probed_at + GCS_INTERVAL:
            return None
        self._gcs_probed_at = now
        for process in (process for process in self._running if process.role == GCS):
            if _listens(process.pid):
                self._serving_gcs.add(process.pid)
            elif process.pid in self._serving_gcs and not process.has_exited:
                return blame(process.entry, "stopped serving")
        return None

    def _blame_raylet_for_its_actors(self) -> None:
        """Blame the raylet instead of an actor if it has exited too.

        A raylet that gets SIGTERM ends all its actors, and these exit before it.
        """
        exited = [process for process in self._processes if process.has_exited]
        exited = [process for process in exited if process.pid not in self._run_log.closed]
        actors = {process.pid: process.exit_code for process in exited if process.role in ACTOR_ROLES}
        raylet = next((process for process in exited if process.role == RAYLET), None)
        if not raylet or not self.cause or not self.cause.process or self.cause.process["pid"] not in actors:
            return
        # Before the run shuts down, nothing else ends a raylet; while it does, Ray ends it in any case.
        killed = [pid for pid, code in actors.items() if code == -signal.SIGKILL]
        if not self._run_log.ending or (len(killed) > 1 and self.cause.process["pid"] in killed):
            self.cause = _exit_of(raylet)

    def _check_shutdown(self, now: float) -> bool:
        """Give the runtime a few seconds to shut down, and look for the cause of its error."""
        self._blame_process_of_error()
        if self._teardown_began_at is None:
            self._teardown_began_at = now
            # Ray reports a daemon that does not respond as dead, but it may only be stopped.
            if self.cause is None and (self._run_log.error or {}).get("lost_peer"):
                names, first = self._stopped_processes()
                if first:
                    reason = f"{names} did not respond: stopped"
                    self.cause = ExitStatus(1, reason, process=first, restartable=True)
        return now > self._teardown_began_at + TEARDOWN_TIMEOUT

    def _blame_process_of_error(self) -> None:
        """Blame the process that the runtime's error names.

        Ray may report a death before the process has exited, so how it exited is known a little later.
        """
        error = self._run_log.error
        if error is None or (self.cause is not None and not self._runtime_named_cause):
            return
        pid = error.get("pid")
        for process in self._processes:
            if process.pid in self._run_log.closed:
                continue
            # An error without an actor's process id is about a raylet: on SIGTERM it informs its peers and
            # then exits.
            is_raylet = (
                pid is None and "Died" in error["kind"] and process.role == RAYLET and process.has_exited
            )
            if process.pid == pid or is_raylet:
                self.cause, self._runtime_named_cause = _exit_of(process), True
                return

    def _hang(self) -> ExitStatus:
        """Write the stacks of all processes to the log and blame one that is stopped."""
        reason = f"no progress for {self._hang_timeout:g} s in phase {self._run_log.phase}"
        stopped, first = self._stopped_processes()
        if first:
            reason += f"; stopped: {stopped}"
        names = {entry["pid"]: f"{entry['role']} {entry['rank']}" for entry in self._run_log.processes}
        stack_dump.write(self._stack_log, reason, names)
        return ExitStatus(1, reason, process=first, restartable=True)

    def _stopped_processes(self) -> tuple[str, dict[str, Any] | None]:
        """Return the names of the stopped descendants and the first of them as {role, rank, pid}.

        Processes of the event log come first.
        """
        keys = ("role", "rank", "pid")
        named = {entry["pid"]: {key: entry[key] for key in keys} for entry in self._run_log.processes}
        pids = [process.pid for process in descendants.running() if process_state(process.pid) == "stopped"]
        pids.sort(key=lambda pid: pid not in named)
        stopped = [named.get(pid, {"role": "process", "rank": 0, "pid": pid}) for pid in pids]
        return ", ".join(map(process_name, stopped)), stopped[0] if stopped else None


def _is_here(entry: Mapping[str, Any]) -> bool:
    """Return True for a process of this machine."""
    return bool(entry["node"] == os.uname().nodename)


def _listens(pid: int) -> bool:
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(connection.status == psutil.CONN_LISTEN for connection in connections)


def _exit_of(process: WatchedProcess) -> ExitStatus:
    """Blame a process that has exited."""
    code = process.exit_code
    how = "died" if code is None else exit_text(code)
    middle = " in the middle of the run" if code is not None and code >= 0 else ""
    return blame(process.entry, how + middle, killed=code == -signal.SIGKILL)
