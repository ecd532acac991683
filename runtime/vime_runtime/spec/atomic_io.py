"""Files that are whole and on the disk, or not there: digests, fsync, and renames that last."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


@dataclass(frozen=True)
class FileRecord:
    """What a file must be to be whole."""

    bytes: int
    sha256: str


class _Digesting:
    """A file that is only appended to, digested on the way, so that nothing is read again for it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        try:
            while left:  # the last piece that fits a full disk is written without an error
                left = left[self._file.write(left) :]
        except OSError as e:
            self.error = e  # a library in between may raise something of its own that hides it
            raise
        self._sha256.update(data)
        self._bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def record(self) -> FileRecord:
        return FileRecord(self._bytes, self._sha256.hexdigest())


def write(path: Path, content: Callable[[Any], object]) -> FileRecord:
    """Create a file by calling ``content`` with something that has ``write(bytes)`` and ``flush()``.

    Returns when its bytes are on the disk; its name is there to stay after ``sync_folder``.

    Raises:
        OSError: naming the file; what was written of it is left for the caller to remove.
    """
    with path.open("wb", buffering=0) as file:
        digesting = _Digesting(file)
        try:
            content(digesting)
            os.fsync(file.fileno())
        except Exception as e:
            cause = digesting.error or e
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from e
            raise
    return digesting.record()


def write_text(path: Path, text: str) -> FileRecord:
    """Create a text file as ``write`` does."""
    return write(path, lambda file: file.write(text.encode()))


def replace_text(path: Path, text: str) -> None:
    """Put a text in place of a file's content in one step: a reader, or a crash, meets the old or the new."""
    new = path.with_name(path.name + ".partial")
    write_text(new, text)
    new.replace(path)
    sync_folder(path.parent)


def read_record(path: Path) -> FileRecord:
    """Size and digest of a file as it is now. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileRecord(file.tell(), digest.hexdigest())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last: a rename is on the disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file directly in a folder last, and the folder too."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)
