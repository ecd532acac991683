"""Read the files of a release from an unpacked tree, a wheel, or a source archive.

Paths are those of the package as it is imported (``vllm/worker.py``), without the folder that a source
archive puts around it. Nothing is installed or built.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import content_at

_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
    ".tar": lambda path: path.open("rb"),
}
# Far above the size of any source file and any release.
LARGEST = 64 * 1024 * 1024
LARGEST_ARCHIVE = 4 * 1024 * 1024 * 1024
_CHUNK = 1024 * 1024


class ReleaseFiles(Protocol):
    """The files of a release. ``name`` is for messages."""

    @property
    def name(self) -> str: ...

    def read(self, path: str) -> bytes | None:
        """Return the content of a file as git stores it (a link's target), or None for no such file."""
        ...

    def paths(self) -> list[str]:
        """Return the paths of all files, sorted."""
        ...

    def mode(self, path: str) -> int:
        """Return the ``st_mode`` of an existing file, 0 if the release states none."""
        ...


def open_path(path: Path, name: str = "") -> ReleaseFiles:
    """Open a directory, wheel or source archive. Raises UsageError for anything else.

    ``name`` is the name under which the file was released, if it differs from the path's.
    """
    name = name or path.name
    if path.is_dir():
        return SourceTree(path)
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file or directory", "give a directory, a wheel or a source archive"
        )
    if name.endswith((".whl", ".zip")):
        return Wheel(path, name)
    for suffix, opened in _OPENERS.items():
        if name.endswith(suffix):
            return SourceArchive(name, path, opened)
    raise UsageError(f"{path}: neither a directory nor a wheel nor a source archive", "give one of the three")


class SourceTree:
    """A directory: ``DIR/vllm/__init__.py`` exists. Links out of it are not followed."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self.name = str(path)

    def read(self, path: str) -> bytes | None:
        full_path = self._path / path
        if not full_path.parent.resolve().is_relative_to(self._path):
            return None
        return None if full_path.is_dir() and not full_path.is_symlink() else content_at(full_path)

    def mode(self, path: str) -> int:
        return (self._path / path).lstat().st_mode

    def paths(self) -> list[str]:
        found = (path for path in self._path.rglob("*") if path.is_symlink() or path.is_file())
        inside = (path.relative_to(self._path) for path in found)
        return sorted(path.as_posix() for path in inside if ".git" not in path.parts)


class Wheel:
    """A wheel, or a source archive that is a zip. Only requested files are read.

    ``prefetch`` is called with the offset and length of a member in the archive before it is read.
    """

    def __init__(
        self,
        file: Path | IO[bytes],
        name: str = "",
        prefetch: Callable[[int, int], Any] = lambda offset, length: None,
    ) -> None:
        self.name = name or Path(file.name).name
        self._file = file
        self._prefetch = prefetch

    def read(self, path: str) -> bytes | None:
        entry = self._entries.get(path)
        if entry is None:
            return None
        if entry.file_size > LARGEST:
            raise _too_large(self.name, path, entry.file_size)
        # A local header precedes the data. It repeats the name and may have more extra fields than the entry.
        self._prefetch(entry.header_offset, 512 + len(entry.filename) + entry.compress_size)
        try:
            return self._archive.read(entry)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
            raise UsageError(f"{self.name}: {path} cannot be read: {e}", "download the file again") from e

    def paths(self) -> list[str]:
        return sorted(self._entries)

    def mode(self, path: str) -> int:
        return self._entries[path].external_attr >> 16

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        entries = {entry.filename: entry for entry in self._archive.infolist() if not entry.is_dir()}
        if self.name.endswith(".whl"):
            return entries
        return {name.partition("/")[2]: entry for name, entry in entries.items()}

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._file)
        except zipfile.BadZipFile as e:
            raise UsageError(f"{self.name}: not a whole wheel: {e}", "download the file again") from e


class SourceArchive:
    """A tar archive with one top-level folder, like a source distribution.

    A compressed tar can only be read from its beginning, and its checksum is at its end: it is decompressed
    once, into an unnamed temporary file, and read from there.
    """

    def __init__(self, name: str, path: Path, opened: Callable[[Path], Any]) -> None:
        self._path = path
        self._open = opened
        self.name = name

    def read(self, path: str) -> bytes | None:
        archive, members = self._opened
        member = members.get(path)
        if member is None:
            return None
        if member.issym():
            return member.linkname.encode("utf-8", "surrogateescape")
        if member.size > LARGEST:
            raise _too_large(self.name, path, member.size)
        file = archive.extractfile(member)
        return file.read() if file else None

    def mode(self, path: str) -> int:
        member = self._opened[1][path]
        return member.mode | (stat.S_IFLNK if member.issym() else stat.S_IFREG)

    def paths(self) -> list[str]:
        return sorted(self._opened[1])

    @cached_property
    def _opened(self) -> tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]:
        """The archive, and its files by their path in the package."""
        try:
            archive = tarfile.open(fileobj=self._decompressed(), mode="r:")  # noqa: SIM115 (stays open)
            members = [member for member in archive.getmembers() if member.isfile() or member.issym()]
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as e:
            raise UsageError(f"{self.name}: not a whole archive: {e}", "download the file again") from e
        return archive, {one.name.removeprefix("./").partition("/")[2]: one for one in members}

    def _decompressed(self) -> IO[bytes]:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (kept open as long as the archive)
        with self._open(self._path) as packed:
            while data := packed.read(_CHUNK):
                file.write(data)
                if file.tell() > LARGEST_ARCHIVE:
                    raise UsageError(
                        f"{self.name}: has more than {LARGEST_ARCHIVE} bytes, which no release has"
                    )
        file.seek(0)
        return file


def _too_large(archive: str, path: str, size: int) -> UsageError:
    return UsageError(f"{archive}: {path} has {size} bytes, which no source file has")
