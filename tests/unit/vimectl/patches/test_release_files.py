from __future__ import annotations

import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from vimectl.patches import release_files
from vimectl.patches.blobs import git_mode

FILES = {"toy/__init__.py": b"", "toy/data.bin": b"\xff\r\n\0", "toy/deep/er.py": b"x = 1\n"}


def tree(place: Path) -> Path:
    for path, content in FILES.items():
        (place / "toy-1.0" / path).parent.mkdir(parents=True, exist_ok=True)
        (place / "toy-1.0" / path).write_bytes(content)
    return place / "toy-1.0"


def wheel(place: Path) -> Path:
    with zipfile.ZipFile(place / "toy-1.0-py3-none-any.whl", "w") as archive:
        for path, content in FILES.items():
            archive.writestr(path, content)
    return place / "toy-1.0-py3-none-any.whl"


def archive(place: Path) -> Path:
    with tarfile.open(place / "toy-1.0.tar.gz", "w:gz") as file:
        file.add(tree(place), "toy-1.0")
    return place / "toy-1.0.tar.gz"


@pytest.mark.parametrize("make", [tree, wheel, archive])
def test_release_is_read_from_any_source(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    found = release_files.open_path(make(tmp_path))
    assert {path: found.read(path) for path in FILES} == FILES
    assert [found.read(path) for path in ("toy/none.py", "toy", "toy/deep", "")] == [None] * 4
    assert found.paths() == sorted(FILES)


def test_files_outside_a_tree_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tree(tmp_path) / "out").symlink_to(tmp_path)
    found = release_files.open_path(tmp_path / "toy-1.0")
    assert found.read("../secret") is None
    assert found.read("out/secret") is None
    assert found.read("out") == bytes(tmp_path)


def test_link_in_an_archive_reads_as_its_target(tmp_path: Path) -> None:
    (tree(tmp_path) / "toy" / "link.py").symlink_to("deep/er.py")
    assert release_files.open_path(archive(tmp_path)).read("toy/link.py") == b"deep/er.py"


def test_modes_of_files_are_known(tmp_path: Path) -> None:
    (tree(tmp_path) / "toy" / "run.sh").touch(0o755)
    (tree(tmp_path) / "toy" / "link").symlink_to("run.sh")
    for path in (tmp_path / "toy-1.0", archive(tmp_path)):
        found = release_files.open_path(path)
        modes = [git_mode(found.mode(f"toy/{name}")) for name in ("__init__.py", "run.sh", "link")]
        assert modes == ["100644", "100755", "120000"]
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as file:
        entry = zipfile.ZipInfo("x/run.sh")
        entry.external_attr = 0o100755 << 16
        file.writestr(entry, b"")
    assert release_files.open_path(tmp_path / "x-1-py3-none-any.whl").mode("x/run.sh") == 0o100755


@pytest.mark.parametrize("make", [wheel, archive])
def test_damaged_archive_is_detected(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    data = bytearray(path.read_bytes())
    place = data.index(FILES["toy/deep/er.py"]) if make is wheel else len(data) // 2
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"cannot be read|not a whole"):
        release_files.open_path(path).read("toy/deep/er.py")


@pytest.mark.parametrize("name", ["toy-1.0-py3-none-any.whl", "toy-1.0.tar.gz"])
def test_file_that_is_not_regular_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match="cannot be read: not a regular file"):
        release_files.open_path(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="cannot be read: not a regular file"):
        release_files.open_path(tmp_path / name)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_archive_is_recognized_by_its_content(tmp_path: Path, suffix: str) -> None:
    with tarfile.open(tmp_path / "toy-1.0.tar", f"w:{suffix}") as file:
        file.add(tree(tmp_path), "toy-1.0")
    assert release_files.open_path(tmp_path / "toy-1.0.tar").read("toy/deep/er.py") == b"x = 1\n"


@pytest.mark.parametrize("make", [wheel, archive])
def test_truncated_or_unknown_file_is_refused(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UsageError, match="not a whole"):
        release_files.open_path(path).read("toy/deep/er.py")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="neither a directory nor a wheel"):
        release_files.open_path(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="no such file"):
        release_files.open_path(tmp_path / "absent.whl")
