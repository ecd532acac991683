"""The processes of a run: which environment they get, and how logs, events and messages name them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict, get_args

# Processes that get an environment. The workers of an engine inherit that of the rollout actor.
Role = Literal["driver", "train", "rollout"]
ROLES: tuple[Role, ...] = get_args(Role)

# The value of "role" in a process entry.
LAUNCHER = "launcher"
SUPERVISOR = "supervisor"
DRIVER = "runtime driver"
TRAINER = "trainer rank"
ENGINE = "engine"
ENGINE_WORKER = "engine worker"
ENGINE_WORKER_SERVER = "engine worker server"
GCS = "GCS"
RAYLET = "raylet"

# The daemons that Ray starts as children of the driver: program name and role.
RAY_DAEMONS = {"gcs_server": GCS, "raylet": RAYLET}

# Roles of which a run can have several processes: their names include the rank.
NUMBERED = (TRAINER, RAYLET, ENGINE, ENGINE_WORKER, ENGINE_WORKER_SERVER)


class ProcessEntry(TypedDict):
    """One process of a run, as a "process" event reports it."""

    role: str
    rank: int
    pid: int
    node: str


def process_name(entry: dict[str, Any] | ProcessEntry) -> str:
    """Return ``trainer rank 1 (pid 123)``; only roles with several processes have a number."""
    number = f" {entry['rank']}" if entry["role"] in NUMBERED else ""
    return f"{entry['role']}{number} (pid {entry['pid']})"


def log_name(process: str) -> str:
    """Return the file name of a process's log in ``logs/``: ``trainer-0.log`` for "trainer 0"."""
    return f"{process.replace(' ', '-')}.log"
