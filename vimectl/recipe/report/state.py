"""What a run is at the moment: going on, ended and how, or broken off without a word."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import psutil

# A process's start is known to the clock tick, launcher.json is written a moment later.
SLACK_SECONDS = 2.0


@dataclass(frozen=True)
class State:
    """``kind`` for colours and scripts, ``words`` for people."""

    kind: Literal["running", "finished", "interrupted", "failed", "unknown"]
    words: str


def state_of(summary: dict[str, Any], launcher: dict[str, Any]) -> State:
    """Judge by what the launcher writes: ``summary.json`` at the end, ``launcher.json`` before."""
    if summary:
        if summary.get("ok") is True:
            return State("finished", "finished")
        reason = str(summary.get("reason") or "failed without a reason")
        return State("interrupted" if summary.get("exit_code") == 130 else "failed", reason)
    if launcher.get("host") not in (None, os.uname().nodename):
        return State("unknown", f"no end written; started on {launcher['host']}")
    if _lives(launcher):
        return State("running", "running")
    return State("failed", "the launcher is gone and has written no end")


def started_at(launcher: dict[str, Any]) -> float:
    """When the launcher wrote its file, in seconds since the epoch; KeyError when it does not say."""
    return float(launcher["time"] if "time" in launcher else launcher["started"])


def _lives(launcher: dict[str, Any]) -> bool:
    """Whether the launcher still runs; its number may have gone to another process meanwhile."""
    try:
        began: float = psutil.Process(launcher["pid"]).create_time()
        return began <= started_at(launcher) + SLACK_SECONDS
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False
