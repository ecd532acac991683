"""Lock target directories, so that only one process changes them at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement
from vime_runtime.spec.regular_files import read_opened

from vimectl.patches.applied_state import LOCK
from vimectl.patches.target_tree import FOLDER, make_folders, open_tree
from vimectl.util.directory_tree import DirectoryTree, OutsideTreeError

WAIT_SECONDS = 30.0


@contextmanager
def locked(locations: Sequence[Path], wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the locks of several target directories, acquired in sorted order to avoid deadlocks.

    Raises:
        CheckFailed: another process holds one for longer than ``wait`` seconds; the message names it.
        MissingRequirement: the directory is not writable, or its bookkeeping folder or lock is a link.
    """
    with ExitStack() as stack:
        for location in sorted(set(locations)):
            stack.enter_context(_one(location, wait))
        yield


def wait_until_unlocked(location: Path, wait: float = WAIT_SECONDS) -> None:
    """Wait for a change in progress, without changing anything. Raises CheckFailed as ``locked`` does."""
    deadline = time.monotonic() + wait
    while is_locked(location):
        _pause(location, deadline)


def is_locked(location: Path) -> bool:
    """Return True if a process is changing a directory."""
    try:
        with open_tree(location) as tree, tree.open(LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it is no lock of this tool
        return False
    return False


@contextmanager
def _one(location: Path, wait: float) -> Iterator[None]:
    deadline = time.monotonic() + wait
    with _explained(location):
        tree = open_tree(location)
    with tree:
        while (held := _try_acquire(tree)) is None:
            _pause(location, deadline)
        # For the messages of those that wait.
        holder = f"process {os.getpid()} on {os.uname().nodename} since {time.strftime('%H:%M:%S')}"
        with suppress(OSError):  # the lock is held even if the disk is full
            os.truncate(held, 0)
            os.pwrite(held, f"{holder}: {' '.join(sys.argv[1:])}\n".encode("utf-8", "surrogateescape"), 0)
        try:
            yield
        finally:
            # The next command removes what cannot be removed now. The folder may have more than the lock, or
            # a new lock of a process that waited.
            with suppress(OSError):
                tree.unlink(LOCK)
            with suppress(OSError):
                tree.remove_folder(FOLDER)
            os.close(held)


def _pause(location: Path, deadline: float) -> None:
    """Wait a moment, or raise CheckFailed with the name of the process that holds the lock."""
    if time.monotonic() > deadline:
        holder = "it has just finished"
        with suppress(OSError), open_tree(location) as tree, tree.open(LOCK) as file:
            holder = read_opened(file, LOCK).decode("utf-8", "replace").strip() or "an unknown process"
        message = f"{location}: another vimectl is changing it: {holder}"
        raise CheckFailed(message, "try again when it is done")
    time.sleep(0.05)


def _try_acquire(tree: DirectoryTree) -> int | None:
    """Return a descriptor that holds the lock, or None when another process has it."""
    with _explained(tree.root):
        try:
            make_folders(tree, FOLDER)
            with tree.folder(FOLDER) as folder:
                descriptor = _open_lock(folder)
        except FileNotFoundError:
            return None  # the last holder removed the folder between two calls
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            path = tree.root / LOCK
            raise MissingRequirement(f"{path} is not a lock of this tool", f"remove {path}")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file after this process opened it: then it locks nothing.
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _open_lock(folder: int) -> int:
    name = os.path.basename(LOCK)
    with suppress(FileNotFoundError):
        # Opening a device can have effects.
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.EINVAL, f"{name} is not a regular file, remove it")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    return os.open(name, flags, 0o666, dir_fd=folder)


@contextmanager
def _explained(location: Path) -> Iterator[None]:
    try:
        yield
    except OutsideTreeError as e:  # it came with copied files; its target is another directory
        raise MissingRequirement(f"{location / FOLDER} is a symbolic link", "remove it") from e
    except OSError as e:
        raise MissingRequirement(
            f"{location} cannot be changed: {e.strerror}",
            "make it writable for this user, or run the command as its owner",
        ) from e
