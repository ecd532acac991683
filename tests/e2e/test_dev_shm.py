"""What a test of a whole run says was left in /dev/shm was left by it, whatever runs beside it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import dev_shm
import pytest


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


def test_what_somebody_removes_soon_is_not_left() -> None:
    before = dev_shm.names()
    descriptor, name = tempfile.mkstemp(dir=dev_shm.SHM, prefix="passing-")
    os.close(descriptor)
    assert Path(name).name in dev_shm.unused(before)
    threading.Timer(0.5, os.unlink, [name]).start()
    assert Path(name).name not in dev_shm.left(before)


def test_what_nobody_removes_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev_shm, "PASSING_SECONDS", 0.5)
    before = dev_shm.names()
    with tempfile.NamedTemporaryFile(dir=dev_shm.SHM, prefix="left-") as left:
        left.file.close()
        assert Path(left.name).name in dev_shm.left(before)


def test_a_directory_is_not_shared_memory() -> None:
    before = dev_shm.names()
    with tempfile.TemporaryDirectory(dir=dev_shm.SHM) as directory:
        assert Path(directory).name not in dev_shm.unused(before)
