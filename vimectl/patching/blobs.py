"""Git blob ids: how content is named here, so that any git can check it."""

from __future__ import annotations

import hashlib
from pathlib import Path


def blob_id(content: bytes) -> str:
    """Return the id that `git hash-object` gives ``content``: SHA-1 of ``blob <length>NUL<content>``."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def blob_at(path: Path) -> str | None:
    """Return the blob id of a file, or None when there is no file. A symbolic link counts as its target path,
    as in git, and so never equals the blob of a regular file."""
    content = content_at(path)
    return None if content is None else blob_id(content)


def content_at(path: Path) -> bytes | None:
    """Return what git stores for ``path``: a file's bytes, a symbolic link's target, None for nothing."""
    if path.is_symlink():
        return bytes(path.readlink())
    return path.read_bytes() if path.exists() else None
