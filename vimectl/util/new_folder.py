"""Write the folder that an output option names: complete, or not there at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.util.directory_lock import explain_disk_errors
from vimectl.util.directory_tree import DirectoryTree


def check_new_folder(path: Path, hint: str = "name another folder, or remove it") -> None:
    """Raise UsageError unless ``path`` is a new name or an empty folder."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and not os.listdir(path):
            return
    except (FileNotFoundError, NotADirectoryError):  # the latter is an error when it is made
        return
    except OSError as e:
        raise UsageError(f"{path}: cannot be used: {e.strerror}", hint) from e
    raise UsageError(f"{path} is a link" if stat.S_ISLNK(mode) else f"{path} exists already", hint)


@contextmanager
def new_folder(path: Path) -> Iterator[Callable[[str, bytes], None]]:
    """Yield a function that writes files, by relative path, to a folder renamed to ``path`` at the end.

    An error leaves nothing behind. Raises UsageError when ``path`` exists and is not an empty folder, and
    MissingRequirement when it cannot be written.
    """
    check_new_folder(path)
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    name = f".{secrets.token_hex(8)}.partial"
    try:
        with explain_disk_errors(path, "name another place with --out"):
            if missing:
                path.parent.mkdir(parents=True, exist_ok=True)
            with DirectoryTree(path.parent) as parent, _removed_after_errors(parent, name):
                parent.make_folder(name)
                yield partial(_write, parent, name)
                parent.rename(name, path.name)
                parent.sync()
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


def _write(tree: DirectoryTree, top: str, path: str, content: bytes) -> None:
    folders = path.split("/")[:-1]
    for number in range(len(folders)):
        with suppress(FileExistsError):
            tree.make_folder("/".join([top, *folders[: number + 1]]))
    tree.create(f"{top}/{path}", content)


@contextmanager
def _removed_after_errors(tree: DirectoryTree, folder: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):
            _remove(tree, folder)
        raise


def _remove(tree: DirectoryTree, folder: str) -> None:
    for name in tree.names(folder):
        path = f"{folder}/{name}"
        status = tree.lstat(path)
        if status and stat.S_ISDIR(status.st_mode):
            _remove(tree, path)
        else:
            tree.unlink(path)
    tree.remove_folder(folder)
