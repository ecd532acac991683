"""The state of an environment directory: its stack, its lock, and the phase that its creation reached.

The file ``.vimectl-env.json`` marks a directory as created by vimectl. ``.vimectl-env/`` holds downloads
until the environment is complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from vime_runtime.spec.errors import UsageError

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


@contextmanager
def lock_directory(directory: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Create and lock an environment directory; remove it again if it stays empty.

    Yields:
        The descriptor of the lock. A child process that inherits it keeps the directory locked when this
        process is killed, so that no second pip starts while the first still runs.

    Raises:
        UsageError: the directory holds something that vimectl did not create.
    """
    existed = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as e:
        raise UsageError(f"{directory} is not a directory", "name another directory") from e
    lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
        entries = {entry.name for entry in directory.iterdir()}
        if STATE_FILE not in entries and entries - {WORK_DIR}:
            raise UsageError(
                f"{directory} was not made by vimectl: it holds {len(entries)} entries and no {STATE_FILE}",
                "name a directory that is empty or does not exist",
            )
        yield lock_fd
    finally:
        if not existed:
            with suppress(OSError):  # not empty: an environment was created
                directory.rmdir()
        os.close(lock_fd)


def clear_directory(directory: Path) -> None:
    """Delete everything in an environment directory except the state and the downloads."""
    for entry in directory.iterdir():
        if entry.name in (STATE_FILE, WORK_DIR):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
