"""The state of an environment directory: its stack, its lock, and the phase that its creation reached.

The file ``.vimectl-env.json`` marks a directory as created by vimectl. ``.vimectl-env/`` holds downloads
until the environment is complete.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

STATE_FILE = ".vimectl-env.json"
WORK_DIR = ".vimectl-env"


@dataclass(frozen=True)
class EnvironmentState:
    """The contents of the state file.

    ``packages`` (name to version) and ``tool`` (which vimectl) describe the last complete state.
    """

    stack: str
    lock: str
    phase: Literal["interpreter", "packages", "complete"]
    packages: dict[str, str] = field(default_factory=dict)
    tool: str = ""


def read_state(directory: Path) -> EnvironmentState | None:
    """Return the state of an environment directory, or None when it has none that can be read."""
    try:
        return EnvironmentState(**json.loads((directory / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_state(directory: Path, state: EnvironmentState) -> None:
    """Replace the state file atomically."""
    work = directory / WORK_DIR
    work.mkdir(exist_ok=True)
    fresh = work / "state.json"
    fresh.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    fresh.replace(directory / STATE_FILE)


def foreign_entries(names: set[str]) -> set[str]:
    """Return the entries of a directory without a state file that vimectl did not create."""
    return set() if STATE_FILE in names else names - {WORK_DIR}


def clear_directory(directory: Path) -> None:
    """Delete everything in an environment directory except the state and the downloads."""
    for entry in directory.iterdir():
        if entry.name in (STATE_FILE, WORK_DIR):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
