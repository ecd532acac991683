"""Identify files by content as git does: blob ids and modes, so that any git can check them."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple

LINK = "120000"


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
