"""One change at a time in a target directory."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.patches.applied_state import folder
from vimectl.patches.durable import make_folder

WAIT_SECONDS = 30.0


@contextmanager
def locked(locations: Sequence[Path], wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the locks of several target directories, taken in one order everywhere so that nobody deadlocks.

    Raises:
        CheckFailed: another process holds one for longer than ``wait`` seconds; the message names it.
        MissingRequirement: the directory cannot be written, or its bookkeeping folder leads elsewhere.
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
            raise CheckFailed(
                f"{location}: another vimectl is changing it: {_holder(path)}", "try again when it is done"
            )
        time.sleep(0.05)
    _sign(held)
    try:
        yield
    finally:
        # What cannot be removed, the next command removes; and there may be more than the lock in the folder,
        # or a new one of somebody who waited.
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
        os.close(held)


def _sign(held: int) -> None:
    """Say in the lock who holds it, for those who wait."""
    since = time.strftime("%H:%M:%S")
    text = f"process {os.getpid()} on {os.uname().nodename} since {since}: {' '.join(sys.argv[1:])}\n"
    with suppress(OSError):  # on a full disk it is held all the same
        os.truncate(held, 0)
        os.pwrite(held, text.encode("utf-8", "surrogateescape"), 0)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "it has not said who it is"
    except OSError:
        return "it has just finished"


def _try(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None when somebody else has it."""
    if path.parent.is_symlink():  # it came with somebody's files; what it leads to is not this target
        raise MissingRequirement(f"{path.parent} is a symbolic link", "remove it")
    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except FileNotFoundError:
        return None  # the last holder removed the folder between the two calls
    except OSError as e:
        raise MissingRequirement(f"{path.parent.parent} cannot be changed: {e.strerror}") from e
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
