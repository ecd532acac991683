"""What an environment directory says of itself: which stack, which lock, how far it got.

The file ``.vimectl-env.json`` makes a directory ours; ``.vimectl-env/`` holds downloads until the
environment is complete.
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

Phase = Literal["interpreter", "packages", "complete"]


@dataclass(frozen=True)
class State:
    """How far an environment got on the way to a lock.

    ``packages`` (name to version) and ``tool`` (which vimectl) are what it held when it was last complete.
    """

    stack: str
    lock: str
    phase: Phase
    packages: dict[str, str] = field(default_factory=dict)
    tool: str = ""


def read_state(directory: Path) -> State | None:
    """Return the state of an environment directory, or None when it has none that can be read."""
    try:
        return State(**json.loads((directory / STATE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write_state(directory: Path, state: State) -> None:
    """Replace the state file at once: a reader sees the old state or the new one."""
    work = directory / WORK_DIR
    work.mkdir(exist_ok=True)
    fresh = work / "state.json"
    fresh.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    fresh.replace(directory / STATE_FILE)


@contextmanager
def owned(directory: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold an environment directory for this process; it is made, and removed again if it stays empty.

    Yields:
        the descriptor of the lock. A child that inherits it keeps the directory locked when this
        process is killed, so that nobody works beside a pip that still runs.

    Raises:
        UsageError: the directory holds something that is not ours.
    """
    existed = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError as e:
        raise UsageError(f"{directory} is not a directory", "name another directory") from e
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(held, fcntl.LOCK_EX)
        entries = {entry.name for entry in directory.iterdir()}
        if STATE_FILE not in entries and entries - {WORK_DIR}:
            raise UsageError(
                f"{directory} was not made by vimectl: it holds {len(entries)} entries and no {STATE_FILE}",
                "name a directory that is empty or does not exist",
            )
        yield held
    finally:
        if not existed:
            with suppress(OSError):  # it is in use, as it should be
                directory.rmdir()
        os.close(held)


def wipe(directory: Path) -> None:
    """Empty an owned directory but for the state and the downloads."""
    for entry in directory.iterdir():
        if entry.name in (STATE_FILE, WORK_DIR):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
