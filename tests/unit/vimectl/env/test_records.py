from pathlib import Path

import pytest

from vimectl.env.records import is_whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_text("x = 1\n")
    info = tmp_path / "a-1.dist-info"
    info.mkdir()
    rows = "a.py,sha256=x,6\n__pycache__/a.cpython-311.pyc,sha256=x,99\na-1.dist-info/RECORD,,\n"
    (info / "RECORD").write_text(rows)
    return info


def test_installation_is_whole_whatever_its_byte_code(folder: Path) -> None:
    assert is_whole(folder)


def test_missing_or_short_file_is_seen(folder: Path) -> None:
    (folder.parent / "a.py").write_text("x\n")
    assert not is_whole(folder)
    (folder.parent / "a.py").unlink()
    assert not is_whole(folder)


def test_without_record_the_installation_was_cut_off(folder: Path) -> None:
    (folder / "RECORD").unlink()
    assert not is_whole(folder)
    (folder / "RECORD").touch()
    assert not is_whole(folder)
