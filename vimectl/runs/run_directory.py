"""Run directories: list and find them, read owners and state of a run, stop a run."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vime_runtime.spec import metrics
from vime_runtime.spec.checkpoint_manifest import newest_state
from vime_runtime.spec.errors import INTERRUPTED, CheckFailed, UsageError, unknown
from vime_runtime.spec.json_files import read_object
from vime_runtime.spec.process_roles import LAUNCHER, SUPERVISOR, process_name
from vime_runtime.spec.regular_files import open_regular
from vime_runtime.spec.run_paths import RUN_FILE, RUNS, RunPaths

from vimectl.runs.process_watch import ProcessIdentity, process_state
from vimectl.runs.run_log import RunLog
from vimectl.runs.supervised_command import SHUTDOWN_MARGIN

RunState = Literal["running", "finished", "failed", "interrupted", "lost"]


def list_runs(folder: Path) -> dict[str, Path]:
    """Return the run directories directly in ``folder`` by name, oldest first."""
    found = sorted(folder.glob(f"*/{RUN_FILE}"), key=lambda run_file: run_file.stat().st_mtime)
    return {path.parent.name: path.parent for path in found}


def find_run(name_or_path: str, folder: Path = RUNS) -> RunDirectory:
    """Find a run by its path, by its name in ``folder``, or by ``last`` for the newest one there.

    Raises:
        UsageError: there is no such run, and the message suggests the nearest names; or the path cannot be
            read.
    """
    try:
        is_path = (Path(name_or_path) / RUN_FILE).is_file()
    except PermissionError as e:
        raise UsageError(f"{name_or_path} cannot be read: {e.strerror}", "its owner can") from e
    if is_path:
        return RunDirectory(Path(name_or_path).absolute())
    known = list_runs(folder)
    if name_or_path == "last" and known:
        return RunDirectory(list(known.values())[-1].absolute())
    if name_or_path not in known:
        hint = f"runs in {folder}: {', '.join(known)}; the path of a run directory works too"
        if not known:
            hint = f"there are no runs in {folder.absolute()}; give the path of a run directory"
        raise unknown("run", name_or_path, known, hint=hint)
    return RunDirectory(known[name_or_path].absolute())


@dataclass(frozen=True)
class RunDirectory:
    """A run directory. Its files are read when they are needed."""

    path: Path

    @property
    def files(self) -> RunPaths:
        """The paths of its files."""
        return RunPaths(self.path)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The content of ``resolved.json``, unchecked: another version of vimectl may have written it."""
        return read_object(self.files.run_file)

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """The content of ``summary.json``; None until the run has ended, and for a lost run."""
        return read_object(self.files.summary) or None

    @cached_property
    def log(self) -> RunLog:
        """The events and metrics that the run has written so far."""
        log = RunLog(self.path)
        log.read()
        return log

    @property
    def owners(self) -> dict[str, ProcessIdentity]:
        """The processes that own the run or owned it, by role, the supervisor last.

        The launcher owns the run alone before the supervisor starts and after it has exited.
        """
        found = {LAUNCHER: read_object(self.files.launcher), SUPERVISOR: read_object(self.files.supervisor)}
        keys = ("pid", "started", "boot", "host")
        return {
            role: ProcessIdentity(*(entry[key] for key in keys))
            for role, entry in found.items()
            if all(key in entry for key in keys)
        }

    @property
    def running_owner(self) -> ProcessIdentity | None:
        """A process of this machine that owns the run; None if there is none or it is on another machine."""
        running = [owner for owner in self.owners.values() if owner.is_local and owner.is_alive]
        return running[-1] if running else None

    @property
    def state(self) -> RunState:
        """The state of the run; ``lost``: no process owns it and it has no summary.

        A run of another machine counts as running until it has a summary. So does one whose supervisor is not
        visible here, in another container or of another user, while it holds its lock.
        """
        if summary := read_object(self.files.summary):
            if summary.get("ok") is True:
                return "finished"
            return "interrupted" if summary.get("exit_code") == INTERRUPTED else "failed"
        owned = any(owner.is_alive or not owner.is_local for owner in self.owners.values())
        return "running" if owned or self.is_locked else "lost"

    @property
    def is_locked(self) -> bool:
        """True while a supervisor may hold its lock, an exclusive flock(2) on ``supervisor.json``."""
        try:
            with open_regular(self.files.supervisor) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # there is none, it cannot be read, or the file system has no locks
            return False
        return False

    @property
    def last_checkpoint(self) -> str | None:
        """The newest complete training state, relative to the run directory."""
        state = newest_state(self.files.checkpoints)
        return str(state.relative_to(self.path)) if state else None

    def as_json(self) -> dict[str, Any]:
        """Return the entry of `vimectl runs list --json`. Raises UsageError if the run file is damaged."""
        if not {"recipe", "mode", "steps"} <= self.document.keys():
            hint = "remove the directory, or restore the file"
            raise UsageError(f"{self.files.run_file} is not the file of a run", hint)
        row = self.log.last_row
        return {
            "name": self.path.name,
            "path": str(self.path),
            "recipe": self.document["recipe"]["recipe"]["name"],
            "mode": self.document["mode"],
            "state": self.state,
            "step": len(self.log.rows),
            "steps_wanted": self.document["steps"],
            "reward": row[metrics.REWARD_MEAN] if row else None,
            "started": self.files.run_file.stat().st_mtime,
        }

    def processes(self) -> list[dict[str, Any]]:
        """Return the processes as {role, rank, pid, node, state}; state None: exited or on another node."""
        owners = [
            {"role": role, "rank": 0, "pid": owner.pid, "node": owner.host}
            for role, owner in self.owners.items()
        ]
        here = os.uname().nodename
        return [
            {key: entry[key] for key in ("role", "rank", "pid", "node")}
            | {"state": process_state(entry["pid"]) if entry["node"] == here else None}
            for entry in owners + self.log.processes
        ]


def stop_run(run: RunDirectory) -> RunDirectory:
    """Send a stop request to a running run and wait until it has ended. Returns its new state.

    Raises:
        UsageError: it runs on another machine, in another container, or it is of another user.
        CheckFailed: no process owns it, or it does not stop.
    """
    name = run.path.name
    if run.state == "lost":
        raise CheckFailed(
            f"{name} is lost: its supervisor has exited and left no summary",
            "`vimectl doctor --only leftovers` shows what is left of it",
        )
    if run.state != "running":
        return run
    supervisor = run.owners.get(SUPERVISOR)
    if supervisor is None:
        raise CheckFailed(f"{name} is only just starting", "try again in a second")
    if not supervisor.is_local:
        raise UsageError(f"{name} runs on {supervisor.host}", "stop it there")
    if not supervisor.is_alive and run.is_locked:
        message = f"{name} runs, but its supervisor is of another user or in another container"
        raise UsageError(message, "stop it there, or as that user")
    try:
        with contextlib.suppress(ProcessLookupError):
            supervisor.send_signal(signal.SIGTERM)
    except PermissionError as e:
        raise UsageError(
            f"{name} is a run of {_owner(run.files.supervisor)}", "only that user and root can stop it"
        ) from e
    timeout = run.document["recipe"]["cluster"]["shutdown_timeout"] + 2 * SHUTDOWN_MARGIN
    deadline = time.monotonic() + timeout
    while (now := RunDirectory(run.path)).state == "running" or supervisor.is_alive:
        if time.monotonic() > deadline:
            process = process_name({"role": SUPERVISOR, "rank": 0, "pid": supervisor.pid})
            raise CheckFailed(
                f"{process} of {name} did not end within {timeout:.0f} s",
                f"kill -9 {supervisor.pid}: if the launcher still runs, it cleans up",
            )
        time.sleep(0.1)
    return now


def _owner(path: Path) -> str:
    """Return the name of the user who owns a file."""
    try:
        return path.owner()
    except (KeyError, OSError):  # this machine has no name for the user
        return "another user"
