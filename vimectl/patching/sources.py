"""The files of a release, wherever they lie: an unpacked tree, a wheel, a source archive.

Paths are those of the package as it is imported (``vllm/worker.py``), whatever folder an archive puts
around it.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol

from vimectl.errors import BadInput
from vimectl.patching.blobs import content_at

ARCHIVES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")
# Far above any source file; an entry that says it is larger is not one.
LARGEST = 64 * 1024 * 1024


class Sources(Protocol):
    """What a patch is compared with. ``name`` is how messages call it."""

    @property
    def name(self) -> str: ...

    def read(self, path: str) -> bytes | None:
        """Return what git stores for a file (for a symbolic link its target); None: no such file."""
        ...


def open_path(path: Path) -> Sources:
    """Return the sources in a directory, wheel or source archive. Raises BadInput when it is none."""
    if path.is_dir():
        return Directory(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such file or directory")
    if path.name.endswith((".whl", ".zip")):
        return Wheel(path)
    if path.name.endswith(ARCHIVES):
        return SourceArchive(path)
    raise BadInput(f"{path}: neither a directory nor a wheel nor a source archive", "give one of these")


class Directory:
    """A tree: ``DIR/vllm/__init__.py`` exists. Nothing outside it is read, links included."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self.name = str(path)

    def read(self, path: str) -> bytes | None:
        place = self._path / path
        if not place.parent.resolve().is_relative_to(self._path):
            return None
        return None if place.is_dir() and not place.is_symlink() else content_at(place)


class Wheel:
    """A wheel or another zip archive. Only the files that are asked for are read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name

    def read(self, path: str) -> bytes | None:
        entry = self._entries.get(path)
        if entry is None:
            return None
        if entry.file_size > LARGEST:
            raise BadInput(f"{self.name}: {path} says it has {entry.file_size} bytes; no source file has")
        try:
            return self._archive.read(entry)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as e:
            raise BadInput(f"{self._path}: {path} cannot be read: {e}", "fetch the file again") from e

    def mode(self, path: str) -> int:
        """Return the Unix mode of a file that is there, 0 where the archive states none."""
        return self._entries[path].external_attr >> 16

    @property
    def names(self) -> Iterable[str]:
        """The paths of all files."""
        return self._entries.keys()

    @cached_property
    def _entries(self) -> dict[str, zipfile.ZipInfo]:
        return {entry.filename: entry for entry in self._archive.infolist() if not entry.is_dir()}

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self._path)
        except zipfile.BadZipFile as e:
            raise BadInput(f"{self._path}: not a whole wheel: {e}", "fetch the file again") from e


class SourceArchive:
    """A tar archive with one folder around everything, as a source distribution has it.

    A compressed tar can only be read from its beginning: its list is read once, and a file
    whenever it is asked for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = path.name

    def read(self, path: str) -> bytes | None:
        member = self._members.get(path)
        if member is None:
            return None
        if member.issym():
            return member.linkname.encode("utf-8", "surrogateescape")
        if member.size > LARGEST:
            raise BadInput(f"{self.name}: {path} says it has {member.size} bytes; no source file has")
        file = self._archive.extractfile(member)
        return file.read() if file else None

    @cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        try:
            members = self._archive.getmembers()
        except (tarfile.TarError, EOFError, OSError) as e:
            raise BadInput(f"{self._path}: not a whole archive: {e}", "fetch the file again") from e
        return {
            member.name.partition("/")[2]: member for member in members if member.isfile() or member.issym()
        }

    @cached_property
    def _archive(self) -> tarfile.TarFile:
        try:
            return tarfile.open(self._path)
        except (tarfile.TarError, EOFError, OSError) as e:
            raise BadInput(f"{self._path}: not a whole archive: {e}", "fetch the file again") from e
