"""What a test of a whole run says was left in /dev/shm was left by it, whatever runs beside it."""

from __future__ import annotations

import multiprocessing
import tempfile

import dev_shm


def test_what_a_process_holds_is_not_said_to_be_left() -> None:
    before = dev_shm.names()
    semaphore = multiprocessing.get_context("spawn").Lock()
    with tempfile.NamedTemporaryFile(dir=dev_shm.SHM, prefix="open-") as held:
        new = dev_shm.names() - before
        assert any(name.startswith("sem.") for name in new)
        assert held.name.removeprefix("/dev/shm/") in new
        assert dev_shm.unused(before) & new == set()
    del semaphore


def test_what_nobody_holds_is() -> None:
    before = dev_shm.names()
    with tempfile.NamedTemporaryFile(dir=dev_shm.SHM, prefix="left-") as left:
        left.file.close()
        assert left.name.removeprefix("/dev/shm/") in dev_shm.unused(before)
