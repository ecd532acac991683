"""Write files that are complete and on the disk, or not there at all: digests, fsync, atomic renames."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vime_runtime.spec.fsync import sync

_CHUNK_BYTES = 1024**2


@dataclass(frozen=True)
class FileRecord:
    """Size and SHA-256 (hexadecimal) of a file."""

    bytes: int
    sha256: str


class _HashingFile:
    """A file that is only appended to. It hashes what is written, so that nothing is read again for it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        try:
            while left:  # on a full disk the last part that fits is written without an error
                left = left[self._file.write(left) :]
        except OSError as e:
            self.error = e  # the library that writes may raise another exception that hides it
            raise
        self._sha256.update(data)
        self._bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def record(self) -> FileRecord:
        return FileRecord(self._bytes, self._sha256.hexdigest())


def write_file(path: Path, content: Callable[[Any], object]) -> FileRecord:
    """Create a file by calling ``content`` with an object that has ``write(bytes)`` and ``flush()``.

    The content is on the disk when this returns; the name is after ``sync`` of the directory.

    Raises:
        OSError: with the path; the caller removes what was written.
    """
    with path.open("wb", buffering=0) as file:
        hashing = _HashingFile(file)
        try:
            content(hashing)
            os.fsync(file.fileno())
        except Exception as e:
            cause = hashing.error or e
            if isinstance(cause, OSError):
                raise OSError(cause.errno, cause.strerror, str(path)) from e
            raise
    return hashing.record()


def write_text(path: Path, text: str) -> FileRecord:
    """Create a text file as ``write_file`` does."""
    return write_file(path, lambda file: file.write(text.encode()))


def write_text_atomically(path: Path, text: str) -> None:
    """Replace the content of a file as ``write_bytes_atomically`` does."""
    write_bytes_atomically(path, text.encode())


def write_bytes_atomically(path: Path, content: bytes) -> None:
    """Replace the content of a file: a reader, or a crash, finds the old content or the new one.

    Several processes may do so at the same time. Raises OSError; nothing new is left then.
    """
    # A random name, which must be new: in a directory of all users another one may put a link in its place.
    new = path.with_name(f".{secrets.token_hex(8)}.partial")
    new.touch(exist_ok=False)
    try:
        write_file(new, lambda file: file.write(content))
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)


def unify_permissions(folder: Path) -> None:
    """Give the files of a folder the permissions that the umask gives a new file.

    Libraries differ: safetensors creates its files for their owner alone, others do not.
    """
    probe = folder / f".{secrets.token_hex(8)}.partial"
    probe.touch(exist_ok=False)
    try:
        for path in folder.iterdir():
            shutil.copymode(probe, path)
    finally:
        probe.unlink()


def file_record(path: Path) -> FileRecord:
    """Return size and digest of a file as it is now. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
        return FileRecord(file.tell(), digest.hexdigest())


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    return file_record(path).sha256


def sync_directory(directory: Path) -> None:
    """Wait until every file in a directory and the names of all are on the disk."""
    for path in directory.iterdir():
        sync(path)
    sync(directory)
