"""What a test of a whole run says was left in /dev/shm was left by it, whatever runs beside it."""

from __future__ import annotations

import multiprocessing
import tempfile
from pathlib import Path

import dev_shm


def test_what_a_process_holds_is_not_said_to_be_left() -> None:
    before = dev_shm.names()
    semaphore = multiprocessing.get_context("spawn").Lock()
    with tempfile.NamedTemporaryFile(dir=dev_shm.SHM, prefix="open-") as held:
        ours = {f"sem.{semaphore._semlock.name.lstrip('/')}", Path(held.name).name}
        assert ours <= dev_shm.names()
        assert not ours & dev_shm.unused(before)


def test_what_nobody_holds_is() -> None:
    before = dev_shm.names()
    with tempfile.NamedTemporaryFile(dir=dev_shm.SHM, prefix="left-") as left:
        left.file.close()
        assert Path(left.name).name in dev_shm.unused(before)


def test_a_directory_is_not_shared_memory() -> None:
    before = dev_shm.names()
    with tempfile.TemporaryDirectory(dir=dev_shm.SHM) as directory:
        assert Path(directory).name not in dev_shm.unused(before)
