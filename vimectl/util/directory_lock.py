"""Lock a directory that vimectl fills, refuse one that holds other files, and explain disk errors."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement, UsageError


@contextmanager
def lock_directory(
    directory: Path,
    on_wait: Callable[[], None],
    foreign: Callable[[set[str]], set[str]] = lambda names: set(),
) -> Iterator[int]:
    """Create a directory and hold an exclusive lock on it.

    Args:
        on_wait: called before waiting for another process that holds the lock.
        foreign: returns those names of entries that vimectl did not create.

    Yields:
        The descriptor of the lock. A child process that inherits it keeps the directory locked when this
        process is killed, so that no second process starts while the child still runs.

    Raises:
        UsageError: it is not a directory, or has foreign entries.
        MissingRequirement: it cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileExistsError as e:
        raise UsageError(f"{directory} is not a directory", "name another directory") from e
    except OSError as e:
        raise MissingRequirement(
            f"{directory} cannot be created: {e.strerror}",
            "name another directory (for the cache: set XDG_CACHE_HOME=DIR)",
        ) from e
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
        if others := sorted(foreign({entry.name for entry in directory.iterdir()})):
            raise UsageError(
                f"{directory} was not made by vimectl: it holds {', '.join(others[:3])}",
                "name a directory that is empty or does not exist",
            )
        yield lock_fd
    finally:
        os.close(lock_fd)


@contextmanager
def explain_disk_errors(folder: Path, hint: str) -> Iterator[None]:
    """Raise MissingRequirement with ``hint`` instead of an OSError, such as a full disk."""
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = "no space left" if full else f"cannot be written: {e.strerror or e}"
        raise MissingRequirement(f"{folder}: {problem}", hint) from e
