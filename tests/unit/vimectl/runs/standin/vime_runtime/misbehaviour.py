"""Descendants of the kind that outlive a careless launcher."""

import mmap
import multiprocessing
import os
import signal
import time
from pathlib import Path


def hostile_descendants(pids: Path) -> None:
    """Start one of each; every one writes its process id and, where it has one, its shared-memory file."""
    for kind in (stubborn, detached, shared_memory_user):
        if os.fork() == 0:
            kind(pids)
            os._exit(0)
    while len(list(pids.glob("*.pid"))) < 3:
        time.sleep(0.01)


def stubborn(pids: Path) -> None:
    """Ignores every polite request."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    _live(pids)


def detached(pids: Path) -> None:
    """Double fork and a session of its own: its parents are gone, nothing leads back to the run."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.setsid()
    stubborn(pids)


def shared_memory_user(pids: Path) -> None:
    """Files in /dev/shm: one mapped with its descriptor closed, one only open, and a semaphore.

    The C library maps a semaphore under a temporary name, so its mapping shows another path.
    """
    semaphore = multiprocessing.get_context("spawn").Lock()
    (pids / "semaphore").write_text(f"/dev/shm/sem.{semaphore._semlock.name.lstrip('/')}")
    files = [Path(f"/dev/shm/standin-{os.getpid()}-{name}") for name in ("mapped", "open")]
    descriptors = [os.open(file, os.O_CREAT | os.O_RDWR) for file in files]
    os.ftruncate(descriptors[0], 4096)
    keep = mmap.mmap(descriptors[0], 4096)
    os.close(descriptors[0])
    detached(pids)
    keep.close()
    semaphore.release()


def _live(pids: Path) -> None:
    (pids / f"{os.getpid()}.pid").touch()
    while True:
        time.sleep(1)
