"""Lock a directory that vimectl fills, refuse one that holds other files, and explain disk errors."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError


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
        UsageError: it is not a directory, or has foreign entries, or another user can change it.
        MissingRequirement: it cannot be created.
    """
    try:
        directory.mkdir(mode=0o775, parents=True, exist_ok=True)
        lock_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileExistsError as e:
        raise UsageError(f"{directory} is not a directory", "name another directory") from e
    except OSError as e:
        if directory.is_symlink():
            raise UsageError(f"{directory} is a link", f"name {directory.resolve()}") from e
        raise MissingRequirement(
            f"{directory} cannot be created: {e.strerror}",
            "name another directory (for the cache: set XDG_CACHE_HOME=DIR)",
        ) from e
    try:
        _check_private(directory, os.fstat(lock_fd))
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


def check_in_place(directory: Path, lock_fd: int) -> None:
    """Check that the path of a locked directory still leads to it.

    Programs such as pip only take a path. Raises CheckFailed when the directory was moved or replaced.
    """
    try:
        in_place = os.path.samestat(directory.lstat(), os.fstat(lock_fd))
    except OSError:
        in_place = False
    if not in_place:
        raise CheckFailed(
            f"{directory} was moved or replaced while it was filled",
            "run the same command again in a place that no other user can change",
        )


def _check_private(directory: Path, status: os.stat_result) -> None:
    """Refuse a directory in which another user can replace files while they are written."""
    if status.st_uid != os.geteuid():
        problem = f"{directory} belongs to another user (uid {status.st_uid})"
    elif status.st_mode & stat.S_IWOTH:
        problem = f"every user can write to {directory}"
    else:
        return
    raise UsageError(problem, "name a directory of your own (for the cache: set XDG_CACHE_HOME=DIR)")


@contextmanager
def explain_disk_errors(folder: Path, hint: str) -> Iterator[None]:
    """Raise MissingRequirement with ``hint`` instead of an OSError, such as a full disk."""
    try:
        yield
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = "no space left" if full else f"cannot be written: {e.strerror or e}"
        raise MissingRequirement(f"{folder}: {problem}", hint) from e
