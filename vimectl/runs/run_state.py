"""Who owns a run, and what state that makes it: decided here for `runs`, `--resume` and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from vime_runtime.spec.errors import INTERRUPTED

from vimectl.runs.process_identity import Identity

State = Literal["running", "finished", "failed", "interrupted", "lost"]

# Each writes who it is into the run directory. The launcher is alone before the supervisor is there, and
# while it cleans up after it.
LAUNCHER, SUPERVISOR = "launcher", "supervisor"
# What the launcher writes first into a run directory; a folder without it is none.
RUN_FILE = "resolved.json"
SUMMARY_FILE = "summary.json"


def owners(run_dir: Path) -> dict[str, Identity]:
    """The processes that own the run, or owned it, by role."""
    found = {role: _identity(run_dir / f"{role}.json") for role in (LAUNCHER, SUPERVISOR)}
    return {role: identity for role, identity in found.items() if identity is not None}


def living_owner(run_dir: Path) -> Identity | None:
    """The process that keeps a run going; None when it has ended, however it did.

    Of a run on another machine one cannot tell.
    """
    living = [owner for owner in owners(run_dir).values() if owner.is_here and owner.lives]
    return living[-1] if living else None


def state(run_dir: Path) -> State:
    """``lost``: it has not ended in good order and nobody owns it any more.

    Of a run on another machine one can only tell that it has ended.
    """
    if summary := read_object(run_dir / SUMMARY_FILE):
        if summary.get("ok") is True:
            return "finished"
        return "interrupted" if summary.get("exit_code") == INTERRUPTED else "failed"
    found = owners(run_dir).values()
    return "running" if any(owner.lives or not owner.is_here for owner in found) else "lost"


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object; empty when it is not there, or not whole: somebody may be writing it."""
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _identity(path: Path) -> Identity | None:
    found = read_object(path)
    keys = ("pid", "started", "boot", "host")
    return Identity(*(found[key] for key in keys)) if all(key in found for key in keys) else None
