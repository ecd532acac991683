from __future__ import annotations

import threading
from pathlib import Path

import pytest
from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.util.directory_lock import lock_directory


def test_second_process_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        with lock_directory(tmp_path / "new", waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with lock_directory(tmp_path / "new", lambda: None):
        thread.start()
        assert waiting.wait(30)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_foreign_entries_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    (tmp_path / "own").touch()
    with (
        pytest.raises(UsageError, match=r"was not made by vimectl: it holds thesis\.tex"),
        lock_directory(tmp_path, lambda: None, lambda names: names - {"own"}),
    ):
        pass


@pytest.mark.parametrize(("path", "error"), [("file", UsageError), ("file/below", MissingRequirement)])
def test_directory_that_cannot_be_created(tmp_path: Path, path: str, error: type[Exception]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(error, match="directory"), lock_directory(tmp_path / path, lambda: None):
        pass
