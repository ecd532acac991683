"""Identify files by content as git does: blob ids and modes, so that any git can check them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

LINK = "120000"
# More than any source file or RECORD has.
_MAX_BYTES = 64 * 2**20


class FileId(NamedTuple):
    """The blob id and ``st_mode`` of a file; both None: no such file."""

    blob: str | None
    st_mode: int | None

    @property
    def mode(self) -> str | None:
        """Return git's mode: ``100644``, ``100755``, ``120000``; None: no such file."""
        return None if self.st_mode is None else git_mode(self.st_mode)


NO_FILE = FileId(None, None)


def blob_id(content: bytes) -> str:
    """Return the id that `git hash-object` gives ``content``: SHA-1 of ``blob <length>NUL<content>``."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def id_of(content: bytes | None) -> str | None:
    """Return the blob id of ``content``, or None for no file."""
    return None if content is None else blob_id(content)


def git_mode(st_mode: int) -> str:
    """Return git's mode of a file or link. Git keeps only the owner's executable bit."""
    if stat.S_ISLNK(st_mode):
        return LINK
    return "100755" if st_mode & stat.S_IXUSR else "100644"


def with_git_mode(st_mode: int, mode: str) -> int:
    """Return ``st_mode`` with the executable bits of git's ``mode``, for those who may read the file."""
    if mode == LINK:
        return stat.S_IFLNK | 0o777
    bits = stat.S_IMODE(st_mode) & ~0o111
    return stat.S_IFREG | (bits | (bits & 0o444) >> 2 if mode == "100755" else bits)


def new_file_mode() -> int:
    """Return the ``st_mode`` that this process's umask gives a new file."""
    mask = os.umask(0o077)
    os.umask(mask)
    return stat.S_IFREG | (0o666 & ~mask)


def content_at(path: Path) -> bytes | None:
    """Return what git stores for ``path``: a file's bytes, a symbolic link's target, None for nothing."""
    if path.is_symlink():
        return os.fsencode(os.readlink(path))  # pathlib would drop a slash at the end
    return read_regular(path) if path.exists() else None


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file of ordinary size. Raises OSError for anything else."""
    status = path.stat()  # opening a named pipe would block
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    if status.st_size > _MAX_BYTES:
        raise OSError(errno.EFBIG, f"larger than {_MAX_BYTES} bytes", str(path))
    return path.read_bytes()


def file_id_at(path: Path) -> FileId:
    """Return the id of a path. Raises OSError for anything but a file or link.

    The content of a symbolic link is its target, so that its id differs from that of the file it points to.
    """
    content = content_at(path)
    return NO_FILE if content is None else FileId(blob_id(content), path.lstat().st_mode)
