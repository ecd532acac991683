from __future__ import annotations

import os
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.util.output_file import STDOUT, check_output, write_output


def test_a_new_and_a_regular_file_are_written(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_output(tmp_path / "page", content)
        assert (tmp_path / "page").read_bytes() == content
    assert os.listdir(tmp_path) == ["page"]


def test_a_dash_is_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_output(STDOUT, b"page")
    assert capfdbinary.readouterr().out == b"page"


@pytest.mark.parametrize("kind", ["device", "pipe", "link", "dangling", "folder", "missing folder"])
def test_anything_else_is_refused_and_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    (tmp_path / "target").write_text("kept")
    if kind == "device":
        path = Path("/dev/null")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "target")
    elif kind == "dangling":
        path.symlink_to(tmp_path / "missing")
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "missing/out"
    before = path.lstat() if kind != "missing folder" else None
    for call in (lambda: check_output(path), lambda: write_output(path, b"x")):
        with pytest.raises(UsageError):
            call()
    assert before is None or path.lstat().st_mode == before.st_mode
    assert (tmp_path / "target").read_text() == "kept"
    assert not (tmp_path / "missing").exists()
