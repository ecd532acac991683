"""Which processes a run consists of, for whoever watches it and wants to know when one is gone."""

from __future__ import annotations

import os
from typing import Any

import psutil

# Ray's daemons by the name of their program. With somebody else's cluster they are not our children.
DAEMONS = {"gcs_server": "GCS", "raylet": "raylet"}


def entry(role: str, rank: int = 0, pid: int | None = None) -> dict[str, Any]:
    """One process of this node; the calling one when no ``pid`` is given."""
    return {"role": role, "rank": rank, "pid": pid or os.getpid(), "node": os.uname().nodename}


def of_driver() -> list[dict[str, Any]]:
    """This process and the Ray daemons that it started, those of a kind counted from 0."""
    found = [entry("runtime driver")]
    for name, role in DAEMONS.items():
        pids = sorted(child.pid for child in psutil.Process().children() if child.name() == name)
        found += [entry(role, rank, pid) for rank, pid in enumerate(pids)]
    return found
