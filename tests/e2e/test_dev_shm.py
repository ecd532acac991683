"""What a test of a whole run says was left in /dev/shm was left by it, whatever runs beside it."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import pytest

from harness.runs import shared_memory


def test_what_a_process_holds_is_not_said_to_be_left() -> None:
    before = shared_memory.names()
    semaphore = multiprocessing.get_context("spawn").Lock()
    with tempfile.NamedTemporaryFile(dir=shared_memory.SHM, prefix="open-") as held:
        ours = {f"sem.{semaphore._semlock.name.lstrip('/')}", Path(held.name).name}
        assert ours <= shared_memory.names()
        assert not ours & shared_memory.unused(before)


def test_what_nobody_holds_is() -> None:
    before = shared_memory.names()
    with tempfile.NamedTemporaryFile(dir=shared_memory.SHM, prefix="left-") as left:
        left.file.close()
        assert Path(left.name).name in shared_memory.unused(before)


def test_what_somebody_removes_soon_is_not_left() -> None:
    before = shared_memory.names()
    descriptor, name = tempfile.mkstemp(dir=shared_memory.SHM, prefix="passing-")
    os.close(descriptor)
    assert Path(name).name in shared_memory.unused(before)
    threading.Timer(0.5, os.unlink, [name]).start()
    assert Path(name).name not in shared_memory.left(before)


def test_what_nobody_removes_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "PASSING_SECONDS", 0.5)
    before = shared_memory.names()
    with tempfile.NamedTemporaryFile(dir=shared_memory.SHM, prefix="left-") as left:
        left.file.close()
        assert Path(left.name).name in shared_memory.left(before)


def test_a_directory_is_not_shared_memory() -> None:
    before = shared_memory.names()
    with tempfile.TemporaryDirectory(dir=shared_memory.SHM) as directory:
        assert Path(directory).name not in shared_memory.unused(before)
