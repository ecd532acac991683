from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from vimectl.env.site_packages import check_marker, is_complete
from vimectl.stacks.catalog import load_stack
from vimectl.util.dist_info import record_hash

BEFORE = b"x = 1\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.py").write_bytes(BEFORE)
    info = tmp_path / "a-1.dist-info"
    info.mkdir()
    rows = "a.py,sha256=x,6\n__pycache__/a.cpython-311.pyc,sha256=x,99\na-1.dist-info/RECORD,,\n"
    (info / "RECORD").write_text(rows)
    return info


def test_byte_code_does_not_count(folder: Path) -> None:
    assert is_complete(folder)


def test_missing_or_truncated_file_is_detected(folder: Path) -> None:
    (folder.parent / "a.py").write_text("x\n")
    assert not is_complete(folder)
    (folder.parent / "a.py").unlink()
    assert not is_complete(folder)


def test_edited_module_is_detected_by_its_digest(folder: Path) -> None:
    (folder.parent / "a.py").write_text("x = 2\n")
    rows = f"a.py,{record_hash(BEFORE)},6\n"
    (folder / "RECORD").write_text(rows)
    assert is_complete(folder)
    assert not is_complete(folder, digests=True)
    (folder.parent / "a.py").write_bytes(BEFORE)
    assert is_complete(folder, digests=True)


def test_missing_or_empty_record_means_incomplete(folder: Path) -> None:
    (folder / "RECORD").unlink()
    assert not is_complete(folder)
    (folder / "RECORD").touch()
    assert not is_complete(folder)


def test_marker_detects_another_build(tmp_path: Path) -> None:
    (package, origin), *_ = load_stack("cpu-0.32").origin.items()
    module = tmp_path / origin.marker.path
    module.parent.mkdir(parents=True)
    module.write_text("cuda = '13.0'\n")
    with pytest.raises(CheckFailed, match=f"does not say {origin.marker.meaning}"):
        check_marker(package, origin, tmp_path)
    module.write_text("cuda = None\n")
    check_marker(package, origin, tmp_path)
