"""The check for files left in /dev/shm ignores files of other processes."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import pytest

from harness.runs import shared_memory


def test_used_file_is_not_left() -> None:
    before = shared_memory.list_files()
    semaphore = multiprocessing.get_context("spawn").Lock()
    with tempfile.NamedTemporaryFile(dir=shared_memory.SHM, prefix="open-") as held:
        ours = {f"sem.{semaphore._semlock.name.lstrip('/')}", Path(held.name).name}
        assert ours <= shared_memory.list_files()
        assert not ours & shared_memory.unused_new_files(before)


def test_file_that_is_removed_soon_is_not_left() -> None:
    before = shared_memory.list_files()
    descriptor, name = tempfile.mkstemp(dir=shared_memory.SHM, prefix="removed-")
    os.close(descriptor)
    assert Path(name).name in shared_memory.unused_new_files(before)
    threading.Timer(0.5, os.unlink, [name]).start()
    assert Path(name).name not in shared_memory.left_files(before)


def test_file_that_is_not_removed_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "REMOVAL_TIMEOUT", 0.5)
    before = shared_memory.list_files()
    with tempfile.NamedTemporaryFile(dir=shared_memory.SHM, prefix="left-") as left:
        left.file.close()
        assert Path(left.name).name in shared_memory.unused_new_files(before)
        assert Path(left.name).name in shared_memory.left_files(before)


def test_directory_is_not_shared_memory() -> None:
    before = shared_memory.list_files()
    with tempfile.TemporaryDirectory(dir=shared_memory.SHM) as directory:
        assert Path(directory).name not in shared_memory.unused_new_files(before)
