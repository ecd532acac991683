"""Descendants that outlive a careless launcher."""

import mmap
import multiprocessing
import os
import signal
import time
from pathlib import Path


def start_all(folder: Path) -> None:
    """Start one of each. Each writes its process id to ``folder``, and its shared-memory files if any."""
    for kind in (ignore_signals, detach, use_shared_memory):
        if os.fork() == 0:
            kind(folder)
            os._exit(0)
    while len(list(folder.glob("*.pid"))) < 3:
        time.sleep(0.01)


def ignore_signals(folder: Path) -> None:
    """Ignore every stop request."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    (folder / f"{os.getpid()}.pid").touch()
    while True:
        time.sleep(1)


def detach(folder: Path) -> None:
    """Double fork into a new session, so that the parents have exited and nothing leads back to the run."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.setsid()
    ignore_signals(folder)


def use_shared_memory(folder: Path) -> None:
    """Use files in /dev/shm: one mapped with its descriptor closed, one only open, and a semaphore.

    The C library maps a semaphore under a temporary name, so its mapping shows another path.
    """
    semaphore = multiprocessing.get_context("spawn").Lock()
    files = [Path(f"/dev/shm/fake-runtime-{os.getpid()}-{name}") for name in ("mapped", "open")]
    paths = [*files, f"/dev/shm/sem.{semaphore._semlock.name.lstrip('/')}"]
    (folder / "shared_memory").write_text("\n".join(map(str, paths)))
    descriptors = [os.open(file, os.O_CREAT | os.O_RDWR) for file in files]
    os.ftruncate(descriptors[0], 4096)
    mapping = mmap.mmap(descriptors[0], 4096)
    os.close(descriptors[0])
    detach(folder)
    mapping.close()
    semaphore.release()
