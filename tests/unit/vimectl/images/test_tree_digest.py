"""The digest of a file tree: what changes it, and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vimectl.images.tree_digest import tree_digest, tree_lines


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "folder").mkdir(parents=True)
    (folder / "folder" / "file").write_text("content")
    (folder / "link").symlink_to("folder/file")
    return folder


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda root: (root / "folder/file").write_text("other"),
    "mode": lambda root: (root / "folder/file").chmod(0o755),
    "mode of a folder": lambda root: (root / "folder").chmod(0o700),
    "name": lambda root: (root / "folder/file").rename(root / "folder/other"),
    "target": lambda root: [(root / "link").unlink(), (root / "link").symlink_to("folder")],
    "kind": lambda root: [(root / "link").unlink(), (root / "link").write_text("folder/file")],
    "an empty folder": lambda root: (root / "empty").mkdir(),
    "a pipe": lambda root: os.mkfifo(root / "pipe"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_digest_changes_with(change: str, root: Path) -> None:
    before = tree_digest(root)
    CHANGES[change](root)
    assert tree_digest(root) != before


@pytest.mark.needs("root")
def test_digest_changes_with_the_owner(root: Path) -> None:
    before = tree_digest(root)
    os.chown(root / "folder/file", 1, 0)
    assert tree_digest(root) != before


def test_digest_does_not_change_with_times_or_location(root: Path, tmp_path: Path) -> None:
    before = tree_digest(root)
    os.utime(root / "folder/file", (1, 1))
    root.rename(tmp_path / "elsewhere")
    assert tree_digest(tmp_path / "elsewhere") == before


def test_line_format(root: Path) -> None:
    (root / "folder" / "file").chmod(0o640)
    (root / "folder").chmod(0o750)
    mine = f"{os.getuid()}:{os.getgid()}"
    digest = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # of "content"
    assert tree_lines(root) == [
        f"d 0750 {mine} - folder",
        f"- 0640 {mine} {digest} folder/file",
        f"l 0777 {mine} folder/file link",
    ]


def test_escaped_names_are_unique(tmp_path: Path) -> None:
    for name in (b"a b", b"a\nb", b"a\xff", b"a\\xff", b"a\\x20b", b"a\\x0ab", b"a\\\\xff"):
        (tmp_path / os.fsdecode(name)).write_text("")
    lines = tree_lines(tmp_path)
    assert len({line.split(" ", 4)[4] for line in lines}) == 7
    assert all("\n" not in line and line.count(" ") == 4 for line in lines)
