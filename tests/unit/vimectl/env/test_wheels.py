from __future__ import annotations

import shutil
import threading
from pathlib import Path

from vimectl.env.wheels import keep


def test_folders_that_pip_deletes_meanwhile_are_no_matter(tmp_path: Path) -> None:
    temporary, wheels = tmp_path / "tmp", tmp_path / "wheels"
    stays = temporary / "pip-0" / "b-1-py3-none-any.whl"
    stays.parent.mkdir(parents=True)
    stays.touch()
    wheels.mkdir()
    ended = threading.Event()

    def come_and_go() -> None:
        number = 0
        while not ended.is_set():
            folder = temporary / f"pip-{(number := number + 1)}"
            folder.mkdir()
            (folder / "a-1-py3-none-any.whl").touch()
            shutil.rmtree(folder)

    pip = threading.Thread(target=come_and_go)
    pip.start()
    try:
        for _ in range(1000):
            keep(temporary, wheels)
    finally:
        ended.set()
        pip.join()
    assert (wheels / stays.name).samefile(stays)
