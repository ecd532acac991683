"""Which runs there are, which one a name or a path means, what state it is in, and stopping it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import CheckFailed, UsageError, unknown

from vimectl.runs import run_state
from vimectl.runs.failures import name as process_name
from vimectl.runs.launch import STOP_MARGIN_SECONDS
from vimectl.runs.process_identity import Identity, status_of
from vimectl.runs.run_log import Journal
from vimectl.runs.run_state import RUN_FILE, State


def kept_in(folder: Path) -> dict[str, Path]:
    """The run directories directly in ``folder``, by name, oldest first."""
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{RUN_FILE}"), key=_created)}


def find(name_or_path: str, folder: Path = Path("runs")) -> Path:
    """Return the run directory that is meant: a path, a name in ``folder``, or ``last`` for the newest there.

    Raises:
        UsageError: there is no such run; the nearest names are given.
    """
    if (Path(name_or_path) / RUN_FILE).is_file():
        return Path(name_or_path).absolute()
    known = kept_in(folder)
    if name_or_path == "last" and known:
        return list(known.values())[-1].absolute()
    if name_or_path not in known:
        raise unknown("run", name_or_path, known, hint=_hint(folder, known))
    return known[name_or_path].absolute()


@dataclass(frozen=True)
class Run:
    """A run directory, read as it is asked for."""

    directory: Path

    @cached_property
    def document(self) -> dict[str, Any]:
        """The content of ``resolved.json``."""
        found: dict[str, Any] = json.loads((self.directory / RUN_FILE).read_text(encoding="utf-8"))
        return found

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """What the run came to; None until it has ended, and for ever when nobody was left to say it."""
        return run_state.read_object(self.directory / run_state.SUMMARY_FILE) or None

    @cached_property
    def journal(self) -> Journal:
        """What the run has written so far."""
        journal = Journal(self.directory)
        journal.read()
        return journal

    @property
    def state(self) -> State:
        """Going on, or how it ended."""
        return run_state.state(self.directory)

    def as_json(self) -> dict[str, Any]:
        """The run in one row."""
        rows = self.journal.rows
        return {
            "name": self.directory.name,
            "path": str(self.directory),
            "recipe": self.document["recipe"]["recipe"]["name"],
            "mode": self.document["mode"],
            "state": self.state,
            "step": len(rows),
            "steps_wanted": self.document["steps"],
            "reward": rows[-1]["reward/mean"] if rows else None,
            "started": _created(self.directory / RUN_FILE),
        }

    def processes(self) -> list[dict[str, Any]]:
        """The processes of the run, {role, rank, pid, node, state}; state None: gone or elsewhere."""
        here = os.uname().nodename
        return [
            {key: entry[key] for key in ("role", "rank", "pid", "node")}
            | {"state": _state_word(entry["pid"]) if entry["node"] == here else None}
            for entry in self._owners() + self.journal.processes
        ]

    def _owners(self) -> list[dict[str, Any]]:
        return [
            {"role": role, "rank": 0, "pid": owner.pid, "node": owner.host}
            for role, owner in run_state.owners(self.directory).items()
        ]


def stop(run: Run) -> Run:
    """Ask a running run to stop and wait until it is gone. Returns it as it is then.

    Raises:
        UsageError: it runs on another machine.
        CheckFailed: nobody owns it any more, or it does not stop.
    """
    if run.state == "lost":
        raise CheckFailed(
            f"{run.directory.name} is lost: its supervisor is gone and left no summary",
            "`vimectl doctor --only leftovers` shows what is left of it",
        )
    if run.state != "running":
        return run
    supervisor = run_state.owners(run.directory).get(run_state.SUPERVISOR)
    if supervisor is None:
        raise CheckFailed(f"{run.directory.name} is only just starting", "try again in a second")
    if not supervisor.is_here:
        raise UsageError(f"{run.directory.name} runs on {supervisor.host}", "stop it there")
    with contextlib.suppress(ProcessLookupError):
        _signal(supervisor, signal.SIGTERM)
    limit = run.document["recipe"]["cluster"]["stop_seconds"] + 2 * STOP_MARGIN_SECONDS
    deadline = time.monotonic() + limit
    while (now := Run(run.directory)).state == "running" or supervisor.lives:
        if time.monotonic() > deadline:
            raise CheckFailed(
                f"{process_name({'role': 'supervisor', 'rank': 0, 'pid': supervisor.pid})} of "
                f"{run.directory.name} did not end within {limit:.0f} s",
                f"kill -9 {supervisor.pid}: its launcher, if there is one, ends the run then",
            )
        time.sleep(0.1)
    return now


def _signal(process: Identity, signum: int) -> None:
    """Send a signal to this very process. Raises ProcessLookupError when it is gone."""
    # The descriptor is opened first: the id cannot come to mean another process after the look.
    fd = os.pidfd_open(process.pid)
    try:
        if process.lives:
            signal.pidfd_send_signal(fd, signum)
    finally:
        os.close(fd)


def _created(run_file: Path) -> float:
    return run_file.stat().st_mtime


def _state_word(pid: int) -> str | None:
    stat = status_of(pid)
    if stat is None or stat[0] in "ZX":
        return None
    return {"T": "stopped", "t": "stopped", "D": "waiting"}.get(stat[0], "running")


def _hint(folder: Path, known: dict[str, Path]) -> str:
    if not known:
        return f"there are no runs in {folder.absolute()}; give the path of a run directory"
    return f"runs in {folder}: {', '.join(known)}; a path of a run directory is fine too"
