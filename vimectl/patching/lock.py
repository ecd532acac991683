"""One change at a time in a target directory."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vimectl.errors import CheckFailed, MachineLacks
from vimectl.patching.ledger import folder

WAIT_SECONDS = 30.0


@contextmanager
def locked(locations: Sequence[Path], wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the locks of several target directories, taken in one order everywhere so that nobody deadlocks.

    Raises CheckFailed when another process holds one for longer than ``wait`` seconds.
    """
    with ExitStack() as stack:
        for location in sorted(set(locations)):
            stack.enter_context(_one(location, wait))
        yield


@contextmanager
def _one(location: Path, wait: float) -> Iterator[None]:
    path = folder(location) / "lock"
    deadline = time.monotonic() + wait
    while (held := _try(path)) is None:
        if time.monotonic() > deadline:
            raise CheckFailed(f"{location}: another vimectl is changing it", "try again when it is done")
        time.sleep(0.05)
    try:
        yield
    finally:
        # The folder goes when nothing but the lock is left in it.
        if os.listdir(path.parent) == [path.name]:
            path.unlink()
            with suppress(OSError):  # somebody who waited has made a new lock in it
                path.parent.rmdir()
        os.close(held)


def _try(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None when somebody else has it."""
    try:
        with suppress(FileExistsError):  # mkdir's exist_ok would fail when the folder goes at this moment
            path.parent.mkdir()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except FileNotFoundError:
        return None  # the last holder removed the folder between the two calls
    except OSError as e:
        raise MachineLacks(f"{path.parent.parent} cannot be changed: {e.strerror}") from e
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file after it was opened here: then this is no lock.
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.close(descriptor)
    return None
