"""Run directories: list and find them, read owners and state of a run, stop a run."""

from __future__ import annotations

import contextlib
import json
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
from vime_runtime.spec.process_roles import LAUNCHER, SUPERVISOR, process_name
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
        UsageError: there is no such run; the message suggests the nearest names.
    """
    if (Path(name_or_path) / RUN_FILE).is_file():
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

        A run of another machine counts as running until it has a summary.
        """
        if summary := read_object(self.files.summary):
            if summary.get("ok") is True:
                return "finished"
            return "interrupted" if summary.get("exit_code") == INTERRUPTED else "failed"
        owners = self.owners.values()
        return "running" if any(owner.is_alive or not owner.is_local for owner in owners) else "lost"

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
        UsageError: it runs on another machine.
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
    with contextlib.suppress(ProcessLookupError):
        supervisor.send_signal(signal.SIGTERM)
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


def read_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; empty if it does not exist or is incomplete, as while it is written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
