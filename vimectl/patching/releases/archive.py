"""Named files of a release that lies in a folder, a wheel or a source archive. Nothing is unpacked or built.

Paths are those of an installed package: the folder around a source archive's content is left out.
"""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from vimectl.errors import BadInput, CheckFailed
from vimectl.patching.blobs import content_at
from vimectl.patching.releases.index import described

_CHUNK = 1024 * 1024
_GZIP = b"\x1f\x8b"


class Release(Protocol):
    """The sources of one release.

    ``label`` says what is read; ``version`` is the version that its name or metadata states, if any.
    """

    @property
    def label(self) -> str: ...

    @property
    def version(self) -> str | None: ...

    def names(self) -> list[str]:
        """The paths of all files, sorted."""

    def read(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        """The content of each path as git stores it (a symbolic link's is its target); None: no such file.

        Raises CheckFailed when the archive is damaged.
        """


def at(path: Path, name: str = "") -> Release:
    """Open the release in a folder (one that holds the package's folder), a wheel or a source archive.

    ``name`` is the file's name as it was released, where that is not the path's.
    Raises BadInput when there is none.
    """
    if path.is_dir():
        return Folder(path)
    if not path.is_file():
        raise BadInput(f"{path}: no such file or folder")
    file = described(name or path.name, "")
    version = file.version if file else None
    label = name or str(path)
    if zipfile.is_zipfile(path):
        return Zip(label, version, lambda: zipfile.ZipFile(path), not label.endswith(".whl"))
    with path.open("rb") as opened:
        compressed = opened.read(2) == _GZIP
    if compressed:
        return Tar(label, version, path)
    raise BadInput(f"{path}: neither a wheel nor a source archive", "name a folder, a .whl or a .tar.gz")


@dataclass(frozen=True)
class Folder:
    """A release that is unpacked or installed, or a checkout of it."""

    path: Path

    @property
    def label(self) -> str:
        return str(self.path)

    @property
    def version(self) -> str | None:
        return None  # which package is meant is not known here

    def names(self) -> list[str]:
        found = (path for path in self.path.rglob("*") if path.is_symlink() or path.is_file())
        relative = (path.relative_to(self.path) for path in found)
        return sorted(path.as_posix() for path in relative if ".git" not in path.parts)

    def read(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        return {path: content_at(self.path / path) for path in paths}


@dataclass(frozen=True)
class Zip:
    """A wheel, or a source archive that is a zip and so has a folder around its content (``rooted``).

    ``prefetch`` is told where a member lies before it is read: offset and length.
    """

    label: str
    version: str | None
    open: Callable[[], zipfile.ZipFile]
    rooted: bool = False
    prefetch: Callable[[int, int], Any] = lambda offset, length: None

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return self.open()
        except zipfile.BadZipFile as e:
            raise CheckFailed(f"{self.label}: damaged: {e}", "get the file again") from e

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        members = (info for info in self._archive.infolist() if not info.is_dir())
        return {_inside(info.filename, self.rooted): info for info in members}

    def names(self) -> list[str]:
        return sorted(self._members)

    def read(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        for path in paths:
            info = self._members.get(path)
            found[path] = None if info is None else self._content(info)
        return found

    def _content(self, info: zipfile.ZipInfo) -> bytes:
        # The local header repeats the name and may have other extra fields than the directory.
        self.prefetch(info.header_offset, 512 + len(info.filename) + info.compress_size)
        try:
            return self._archive.read(info)  # checks the CRC
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as e:
            raise CheckFailed(f"{self.label}: damaged: {e}", "get the file again") from e


@dataclass
class Tar:
    """A source archive. A look at it decompresses all of it, so that many paths are asked for at once."""

    label: str
    version: str | None
    path: Path
    _names: list[str] | None = None

    def names(self) -> list[str]:
        if self._names is None:
            self.read(())
        return sorted(self._names or ())

    def read(self, paths: Iterable[str]) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = dict.fromkeys(paths)
        names = []
        try:
            with gzip.open(self.path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
                for member in archive:
                    if not (member.isreg() or member.issym()):
                        continue
                    names.append(name := _inside(member.name, rooted=True))
                    if name in found:
                        file = None if member.issym() else archive.extractfile(member)
                        found[name] = file.read() if file else member.linkname.encode()
                while unpacked.read(_CHUNK):  # to the end, where the checksum is
                    pass
        except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as e:
            raise CheckFailed(f"{self.label}: damaged: {e}", "get the file again") from e
        self._names = names
        return found


def _inside(name: str, rooted: bool) -> str:
    name = name.removeprefix("./")
    return name.partition("/")[2] if rooted else name
