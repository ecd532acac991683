from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from vimectl.patches.target_lock import locked
from vimectl.patches.target_tree import FOLDER


def test_waiting_for_the_lock_times_out(tmp_path: Path) -> None:
    with (
        locked([tmp_path]),
        pytest.raises(CheckFailed, match=rf"another vimectl is changing it: process {os.getpid()} on "),
        locked([tmp_path], wait=0.1),
    ):
        pass


def _count(directory: Path, times: int) -> None:
    for _ in range(times):
        with locked([directory]):
            path = directory / "count"
            value = int(path.read_text())
            time.sleep(0.0005)
            path.write_text(str(value + 1))


def test_lock_excludes_although_its_file_is_removed(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(tmp_path, 5)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "20"
    assert not (tmp_path / FOLDER).exists()
