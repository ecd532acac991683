"""The digest of a file tree: two images with the same digest have the same files.

Every entry of the tree is one line, ``TYPE MODE UID:GID CONTENT PATH``: the type as in ``ls`` (d, -, l, c, b,
p, s), the permissions in octal, and as content the SHA-256 of a regular file, the target of a symlink, the
numbers of a device, and "-" otherwise. Lines are sorted by path, as bytes; names and targets are escaped so
that each fits on its line. The digest is the SHA-256 of all lines.

Times are not included: builders treat SOURCE_DATE_EPOCH differently, and nothing relevant in an image depends
on them. Neither are extended attributes and hard links (two names of one file count as two files).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vime_runtime.spec.atomic_io import sha256_file


def tree_digest(root: Path) -> str:
    """Return the digest of everything below ``root``."""
    digest = hashlib.sha256()
    for line in tree_lines(root):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def tree_lines(root: Path) -> list[str]:
    """Return the lines that the digest is made of."""
    return [_line(root, path) for path in sorted(_entries(os.fsencode(root)))]


def _entries(directory: bytes) -> Iterator[bytes]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry.path
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)


def _line(root: Path, path: bytes) -> str:
    found = os.lstat(path)
    content = "-"
    if stat.S_ISREG(found.st_mode):
        content = sha256_file(Path(os.fsdecode(path)))
    elif stat.S_ISLNK(found.st_mode):
        content = _escape(os.readlink(path))
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        content = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    kind, mode = stat.filemode(found.st_mode)[0], stat.S_IMODE(found.st_mode)
    name = _escape(os.path.relpath(path, os.fsencode(root)))
    return f"{kind} {mode:04o} {found.st_uid}:{found.st_gid} {content} {name}"


def _escape(name: bytes) -> str:
    """Return a unique form of a name without spaces and newlines."""
    text = name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return text.replace(" ", "\\x20").replace("\n", "\\x0a")
