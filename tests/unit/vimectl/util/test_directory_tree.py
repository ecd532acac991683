from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vimectl.util.directory_tree import DirectoryTree, OutsideTreeError


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text("secret\n")
    return folder


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Path:
    root = tmp_path / "root"
    (root / "pkg/sub").mkdir(parents=True)
    (root / "pkg/file.py").write_text("x = 1\n")
    (root / "pkg/inside").symlink_to("sub/../../pkg")
    (root / "pkg/loop").symlink_to("loop")
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("pkg/sub/../../../outside")
    (root / "file-link").symlink_to(outside / "secret.txt")
    os.mkfifo(root / "pipe")
    return root


CALLS: dict[str, Callable[[DirectoryTree, str], object]] = {
    "read": lambda tree, path: tree.read(path),
    "read_link": lambda tree, path: tree.read_link(path),
    "create": lambda tree, path: tree.create(f"{path}.new", b"evil"),
    "make_folder": lambda tree, path: tree.make_folder(f"{path}.new"),
    "symlink": lambda tree, path: tree.symlink(b"x", f"{path}.new"),
    "rename to": lambda tree, path: tree.rename("pkg/file.py", path),
    "rename from": lambda tree, path: tree.rename(path, "pkg/file.py"),
    "unlink": lambda tree, path: tree.unlink(path),
    "remove_folder": lambda tree, path: tree.remove_folder(path),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "path", ["out/secret.txt", "up/secret.txt", "../outside/secret.txt", "pkg/../../outside/secret.txt"]
)
def test_no_call_leaves_the_tree(root: Path, outside: Path, call: str, path: str) -> None:
    with DirectoryTree(root, follow_links=True) as tree, pytest.raises(OutsideTreeError):
        CALLS[call](tree, path)
    assert [one.name for one in outside.iterdir()] == ["secret.txt"]
    assert (outside / "secret.txt").read_text() == "secret\n"


def test_an_absolute_path_is_refused(root: Path, outside: Path) -> None:
    with DirectoryTree(root) as tree, pytest.raises(OutsideTreeError):
        tree.read(str(outside / "secret.txt"))


def test_links_inside_are_followed_only_on_request(root: Path) -> None:
    with DirectoryTree(root, follow_links=True) as tree:
        assert tree.read("pkg/inside/inside/file.py") == b"x = 1\n"
        with pytest.raises(OutsideTreeError):
            tree.read("pkg/loop/x")
    with DirectoryTree(root) as tree, pytest.raises(OutsideTreeError):
        tree.read("pkg/inside/file.py")


def test_a_link_or_pipe_in_the_place_of_a_file_is_not_read(root: Path) -> None:
    with DirectoryTree(root, follow_links=True) as tree:
        with pytest.raises(OSError, match="symbolic link"):
            tree.read("file-link")
        with pytest.raises(OSError, match="not a regular file"):
            tree.read("pipe")
        with pytest.raises(OSError, match="larger than 3 bytes"):
            tree.read("pkg/file.py", 3)
        assert tree.read_link("file-link").endswith(b"/secret.txt")


def test_files_are_created_renamed_and_removed(root: Path) -> None:
    with DirectoryTree(root, follow_links=True) as tree:
        tree.make_folder("pkg/new")
        tree.create("pkg/new/a", b"content", 0o600)
        with pytest.raises(FileExistsError, match="pkg/new/a"):
            tree.create("pkg/new/a", b"")
        tree.rename("pkg/new/a", "pkg/inside/b")
        status = tree.lstat("pkg/b")
        assert status is not None
        assert status.st_mode & 0o777 == 0o600
        tree.symlink(b"b", "pkg/c")
        assert tree.names("pkg/new") == []
        tree.remove_folder("pkg/new")
        tree.unlink("pkg/c")
        tree.sync("pkg")
        assert tree.names("pkg") == ["b", "file.py", "inside", "loop", "sub"]
        assert tree.lstat("pkg/c") is None
        assert tree.lstat("pkg/b/c") is None
    assert (root / "pkg/b").read_bytes() == b"content"


def test_a_folder_that_is_swapped_for_a_link_is_not_entered(root: Path, outside: Path) -> None:
    """Swap a folder for a link while files are created through it."""
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (root / "pkg/sub").rename(root / "pkg/aside")
            (root / "pkg/sub").symlink_to(outside)
            (root / "pkg/sub").unlink()
            (root / "pkg/aside").rename(root / "pkg/sub")

    attacker = threading.Thread(target=swap)
    attacker.start()
    created = 0
    try:
        with DirectoryTree(root, follow_links=True) as tree:
            for number in range(2000):
                try:
                    tree.create(f"pkg/sub/{number}", b"")
                    created += 1
                except OSError:
                    pass
    finally:
        done.set()
        attacker.join()
    assert [one.name for one in outside.iterdir()] == ["secret.txt"]
    assert created == len(list((root / "pkg/sub").iterdir()))


def test_no_descriptor_is_left_open(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with DirectoryTree(root, follow_links=True) as tree:
        tree.read("pkg/inside/file.py")
        for path in ("out/x", "pkg/loop/x", "missing/x", "pkg/file.py/x", "pipe"):
            with pytest.raises(OSError, match=path):
                tree.read(path)
    assert len(os.listdir("/proc/self/fd")) == before
