"""What git would store for a path: how content is named here, so that any git can check it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

LINK = "120000"


class Found(NamedTuple):
    """A path as git sees it: blob id and mode (``100644``, ``100755``, ``120000``); both None: nothing."""

    blob: str | None
    mode: str | None


NOTHING = Found(None, None)


def blob_id(content: bytes) -> str:
    """Return the id that `git hash-object` gives ``content``: SHA-1 of ``blob <length>NUL<content>``."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def id_of(content: bytes | None) -> str | None:
    """Return the blob id of ``content``, None for no such file."""
    return None if content is None else blob_id(content)


def git_mode(st_mode: int) -> str:
    """Return git's mode of a file or link: of its permissions git keeps whether the owner may execute it."""
    if stat.S_ISLNK(st_mode):
        return LINK
    return "100755" if st_mode & stat.S_IXUSR else "100644"


def permissions(st_mode: int, git: str) -> int:
    """Return ``st_mode`` made executable or not as the git mode says: for those who may read it."""
    if git == LINK:
        return stat.S_IFLNK | 0o777
    bits = stat.S_IMODE(st_mode) & ~0o111
    return stat.S_IFREG | (bits | (bits & 0o444) >> 2 if git == "100755" else bits)


def fresh_mode() -> int:
    """Return the ``st_mode`` that a new file gets here."""
    mask = os.umask(0o077)
    os.umask(mask)
    return stat.S_IFREG | (0o666 & ~mask)


def content_at(path: Path) -> bytes | None:
    """Return what git stores for ``path``: a file's bytes, a symbolic link's target, None for nothing."""
    if path.is_symlink():
        return bytes(path.readlink())
    return path.read_bytes() if path.exists() else None


def found_at(path: Path) -> Found:
    """Return what git would store for ``path``; fails at what is neither a file nor a link."""
    content = content_at(path)
    return NOTHING if content is None else Found(blob_id(content), git_mode(path.lstat().st_mode))


def blob_at(path: Path) -> str | None:
    """Return the blob id of a file, or None when there is no file. A symbolic link counts as its target path,
    as in git, and so never equals the blob of a regular file."""
    return found_at(path).blob
