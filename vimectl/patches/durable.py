"""Write to the disk and not only to its cache, and keep the owners that a target's files have."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path


def write(path: Path, content: bytes, like: os.stat_result, mode: int | None) -> None:
    """Make a file with the owner of ``like`` and this ``st_mode`` (None: as any new file; a link: to the
    path that ``content`` is). It is not synced yet: that is much faster for many at once."""
    if mode is not None and stat.S_ISLNK(mode):
        os.symlink(content, os.fsencode(path))
        _own(path, like)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid):
            os.fchown(descriptor, like.st_uid, like.st_gid)
        if mode is not None:
            os.fchmod(descriptor, stat.S_IMODE(mode))
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> list[Path]:
    """Make a folder and the missing ones above it; each belongs to the owner of the one above it.

    Returns those that were missing, the highest first.
    """
    made = []
    if not path.is_dir():
        made = [*make_folder(path.parent), path]
        with suppress(FileExistsError):  # mkdir's exist_ok would fail when somebody removes it at this moment
            path.mkdir()
        _own(path, path.parent.stat())
    return made


def _own(path: Path, like: os.stat_result) -> None:
    found = path.lstat()
    if (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid) and os.geteuid() == 0:
        os.chown(path, like.st_uid, like.st_gid, follow_symlinks=False)
