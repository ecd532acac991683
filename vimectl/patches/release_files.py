"""Read the files of a release from an unpacked tree, a wheel, or a source archive.

Paths are those of the package as it is imported (``vllm/worker.py``), without the folder that a source
archive puts around it. Nothing is installed or built.
"""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Protocol

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import content_at, git_mode
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.patchfile.names import path_problem
from vimectl.util.phase_progress import ReportPhase

# What a truncated or damaged archive raises.
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


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


class PatchedRelease:
    """The files of a release after some patches. ``changed``: None for a removed file."""

    def __init__(self, files: ReleaseFiles, changed: Mapping[str, GitFile | None] | None = None) -> None:
        self.name = files.name
        self.files = files
        self._changed = changed or {}

    def file(self, path: str) -> GitFile | None:
        """Return a file, or None when there is none, as under a path that no patch may name."""
        if path in self._changed:
            return self._changed[path]
        if path_problem(path):
            return None
        content = self.files.read(path)
        return None if content is None else GitFile(content, git_mode(self.files.mode(path)))

    def with_changes(self, changed: Mapping[str, GitFile | None]) -> PatchedRelease:
        """Return the release with one more patch."""
        return PatchedRelease(self.files, {**self._changed, **changed})


def open_release(text: str, progress: ReportPhase = lambda now: None) -> ReleaseFiles:
    """Open the release that ``--against`` names: a path, or PACKAGE==VERSION from pip's sources.

    Raises the errors of ``open_path`` and ``finder.find``.
    """
    from vimectl.patches.releases import finder  # imported here because most commands download nothing

    path, named = Path(text), finder.parse(text)
    return finder.find(*named, progress) if named and not path.exists() else open_path(path)


def open_path(path: Path, name: str = "") -> ReleaseFiles:
    """Open a directory, wheel or source archive. Raises UsageError for anything else.

    ``name`` is the name under which the file was released, if it differs from the path's.
    """
    name = name or path.name
    if path.is_dir():
        return SourceTree(path)
    if not path.is_file():
        raise UsageError(
            f"{path}: no such file or directory",
            "give a directory, a wheel, a source archive or PACKAGE==VERSION",
        )
    if name.endswith((".whl", ".zip")):
        return Wheel(path, name)
    if name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")):
        return SourceArchive(path, name)
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
    """A wheel, or a source archive that is a zip. Only requested files are read."""

    def __init__(self, file: Path | IO[bytes], name: str = "") -> None:
        self.name = name or Path(file.name).name
        self._file = file

    def read(self, path: str) -> bytes | None:
        try:
            return self._archive.read(self._entries[path]) if path in self._entries else None
        # zipfile raises the last two for a compression that it does not know, and for encrypted files.
        except (*_DAMAGED, NotImplementedError, RuntimeError) as e:
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

    It is read once and kept in memory: a compressed tar can only be read from its beginning, and its
    checksum is at its end.
    """

    def __init__(self, path: Path, name: str = "") -> None:
        self.name = name or path.name
        self._path = path

    def read(self, path: str) -> bytes | None:
        return self._files[path][1] if path in self._files else None

    def paths(self) -> list[str]:
        return sorted(self._files)

    def mode(self, path: str) -> int:
        return self._files[path][0]

    @cached_property
    def _files(self) -> dict[str, tuple[int, bytes]]:
        """Mode and content of each file by its path in the package."""
        files = {}
        try:
            with tarfile.open(self._path) as archive:
                for member in archive:
                    path = member.name.removeprefix("./").partition("/")[2]
                    if member.issym():
                        files[path] = stat.S_IFLNK, member.linkname.encode("utf-8", "surrogateescape")
                    elif content := archive.extractfile(member):
                        files[path] = member.mode | stat.S_IFREG, content.read()
                while archive.fileobj and archive.fileobj.read(1024**2):
                    pass  # compares the checksum
        except (*_DAMAGED, OSError) as e:
            raise UsageError(f"{self.name}: not a whole archive: {e}", "download the file again") from e
        return files
