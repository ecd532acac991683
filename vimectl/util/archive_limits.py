"""Limit what an archive may unpack to: members, bytes, and the ratio of bytes unpacked to bytes packed.

An archive from a package index, or named by a user, may be made to fill memory and disk: deflate packs 1,000
bytes of zeros into one, and a header may state any size.
"""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
import zlib
from typing import IO

_MIB = 1024**2
MAX_MEMBERS = 50_000
# More than any source file has. A member is kept in memory.
MAX_MEMBER = 64 * _MIB
# Sources are packed 3 to 10 times smaller. Small archives may have files of zeros, like those of tests.
_MAX_RATIO = 100
_ALLOWED_ANYWAY = 64 * _MIB
# The directory of a zip file, which zipfile reads at once: 100 bytes for each member.
_MAX_DIRECTORY = 16 * _MIB


# What zipfile raises for a truncated, damaged or crafted file: NotImplementedError for a compression that it
# does not know, RuntimeError for an encrypted member. ArchiveTooLarge is a ValueError.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError),
)


class ArchiveTooLarge(ValueError):
    """An archive, or one of its members, has or states more than the limits."""


class UnpackLimit:
    """Count members and their bytes while an archive of ``packed`` bytes is read. ``most``: the bytes."""

    def __init__(self, packed: int) -> None:
        self.most = max(_ALLOWED_ANYWAY, packed * _MAX_RATIO)
        self._members = self._bytes = 0

    def add(self, size: int) -> None:
        """Count a member of ``size`` bytes. Raises ArchiveTooLarge."""
        self._members += 1
        self._bytes += size
        if size < 0:
            raise ArchiveTooLarge("a member states a negative size")
        if self._members > MAX_MEMBERS:
            raise ArchiveTooLarge(f"more than {MAX_MEMBERS} members")
        if self._bytes > self.most:
            raise ArchiveTooLarge(f"it unpacks to more than {self.most // _MIB} MiB")


class LimitedFile(io.BufferedReader):
    """A file of which one read returns at most ``at_once`` bytes, and that ends after ``most``.

    Libraries read as many bytes into memory as a header states. Both limits raise ArchiveTooLarge.
    """

    def __init__(self, file: IO[bytes] | io.IOBase, at_once: int, most: int | None = None) -> None:
        super().__init__(file)  # type: ignore[arg-type]
        self._at_once, self._most = at_once, most

    def read(self, size: int | None = -1, /) -> bytes:
        stated = -1 if size is None else size
        data = super().read(min(stated, self._at_once + 1) if stated >= 0 else self._at_once + 1)
        if len(data) > self._at_once:
            raise ArchiveTooLarge(f"a header is larger than {self._at_once // _MIB} MiB")
        self._check(self.tell())
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 0:
            self._check(offset)
        return super().seek(offset, whence)

    def _check(self, position: int) -> None:
        if self._most is not None and position > self._most:
            raise ArchiveTooLarge(f"it unpacks to more than {self._most // _MIB} MiB")


def open_zip(file: IO[bytes] | io.IOBase) -> zipfile.ZipFile:
    """Open a zip file whose directory is within the limits.

    Raises:
        ArchiveTooLarge: it has or states more members or bytes.
        zipfile.BadZipFile: it is damaged.
    """
    limited = LimitedFile(file, _MAX_DIRECTORY)
    packed = limited.seek(0, io.SEEK_END)
    archive = zipfile.ZipFile(limited)
    limit = UnpackLimit(packed)
    for member in archive.infolist():
        limit.add(member.file_size)
    return archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return the content of a member of at most ``MAX_MEMBER`` bytes.

    Raises:
        ArchiveTooLarge: it states more bytes, or see ``copy_member``.
        ``ZIP_ERRORS``: it is damaged.
    """
    if member.file_size > MAX_MEMBER:
        raise ArchiveTooLarge(f"it has {member.file_size} bytes, at most {MAX_MEMBER} are read")
    content = io.BytesIO()
    copy_member(archive, member, content)
    return content.getvalue()


def copy_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, out: IO[bytes]) -> None:
    """Write the content of a member to a file, no more bytes than it states.

    Raises:
        ArchiveTooLarge: it is compressed in a way that can take unlimited memory.
        ``ZIP_ERRORS``: it is damaged.
    """
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArchiveTooLarge("it is not compressed like a member of a wheel")
    with archive.open(member) as source:
        shutil.copyfileobj(source, out, _MIB)
