"""Lock target directories, so that only one process changes them at a time."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.patches.applied_state import bookkeeping_folder
from vimectl.patches.file_replacement import make_folder

WAIT_SECONDS = 30.0


@contextmanager
def locked(locations: Sequence[Path], wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the locks of several target directories, acquired in sorted order to avoid deadlocks.

    Raises:
        CheckFailed: another process holds one for longer than ``wait`` seconds; the message names it.
        MissingRequirement: the directory is not writable, or its bookkeeping folder is a link.
    """
    with ExitStack() as stack:
        for location in sorted(set(locations)):
            stack.enter_context(_one(location, wait))
        yield


@contextmanager
def _one(location: Path, wait: float) -> Iterator[None]:
    path = bookkeeping_folder(location) / "lock"
    deadline = time.monotonic() + wait
    while (held := _try_acquire(path)) is None:
        if time.monotonic() > deadline:
            holder = "it has just finished"
            with suppress(OSError):
                text = path.read_text(encoding="utf-8", errors="replace")
                holder = text.strip() or "an unknown process"
            message = f"{location}: another vimectl is changing it: {holder}"
            raise CheckFailed(message, "try again when it is done")
        time.sleep(0.05)
    # For the messages of those that wait.
    holder = f"process {os.getpid()} on {os.uname().nodename} since {time.strftime('%H:%M:%S')}"
    with suppress(OSError):  # the lock is held even if the disk is full
        os.truncate(held, 0)
        os.pwrite(held, f"{holder}: {' '.join(sys.argv[1:])}\n".encode("utf-8", "surrogateescape"), 0)
    try:
        yield
    finally:
        # The next command removes what cannot be removed now. The folder may have more than the lock, or a
        # new lock of a process that waited.
        with suppress(OSError):
            path.unlink(missing_ok=True)
            path.parent.rmdir()
        os.close(held)


def _try_acquire(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None when another process has it."""
    if path.parent.is_symlink():  # it came with copied files; its target is another directory
        raise MissingRequirement(f"{path.parent} is a symbolic link", "remove it")
    try:
        make_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except FileNotFoundError:
        return None  # the last holder removed the folder between the two calls
    except OSError as e:
        raise MissingRequirement(
            f"{path.parent.parent} cannot be changed: {e.strerror}",
            "make it writable for this user, or run the command as its owner",
        ) from e
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file after this process opened it: then it locks nothing.
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.close(descriptor)
    return None
