"""Read the files of a release from an unpacked tree, a wheel, or a source archive.

Paths are those of the package as it is imported (``vllm/worker.py``), without the folder that a source
archive puts around it. Nothing is installed or built.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Protocol

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.regular_files import open_regular

from vimectl.patches.blobs import LINK, git_mode
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.patchfile.names import path_problem
from vimectl.util.archive_limits import (
    ZIP_ERRORS,
    ArchiveTooLarge,
    LimitedFile,
    UnpackLimit,
    open_zip,
    read_member,
)
from vimectl.util.directory_tree import DirectoryTree, OutsideTreeError
from vimectl.util.phase_progress import ReportPhase

# What a truncated, damaged or crafted archive raises; LookupError is for a link in a tar file.
_DAMAGED = (*ZIP_ERRORS, tarfile.TarError, lzma.LZMAError, gzip.BadGzipFile, LookupError)
_MIB = 1024**2
# A source archive is kept in memory. Its headers take 1 KiB for each member, rarely more.
_MAX_TAR = 512 * _MIB
_MAX_HEADER = _MIB


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

    def link(self, path: str) -> bytes | None:
        """Return the target of a symbolic link, or None when ``path`` is none."""
        file = self.file(path)
        return file.content if file and file.mode == LINK else None

    def with_changes(self, changed: Mapping[str, GitFile | None]) -> PatchedRelease:
        """Return the release with one more patch."""
        return PatchedRelease(self.files, {**self._changed, **changed})


def open_release(text: str, progress: ReportPhase = lambda now: None) -> ReleaseFiles:
    """Open the release that ``--against`` names: a path, or PACKAGE==VERSION from pip's sources.

    Raises the errors of ``open_path`` and ``release_finder.find``.
    """
    from vimectl.patches import release_finder  # imported here because most commands download nothing

    path, named = Path(text), release_finder.parse(text)
    return release_finder.find(*named, progress) if named and not path.exists() else open_path(path)


def open_path(path: Path, name: str = "") -> ReleaseFiles:
    """Open a directory, wheel or source archive. Raises UsageError for anything else.

    ``name`` is the name under which the file was released, if it differs from the path's.
    """
    name = name or path.name
    if path.is_dir():
        return SourceTree(path)
    hint = "give a directory, a wheel, a source archive or PACKAGE==VERSION"
    try:
        open_regular(path).close()
    except FileNotFoundError as e:
        raise UsageError(f"{path}: no such file or directory", hint) from e
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}", hint) from e
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
        try:
            with DirectoryTree(self._path, follow_links=True) as tree:
                status = tree.lstat(path)
                if status is None or stat.S_ISDIR(status.st_mode):
                    return None
                return tree.read_link(path) if stat.S_ISLNK(status.st_mode) else tree.read(path)
        except OutsideTreeError:
            return None
        except OSError as e:
            raise UsageError(
                f"{self._path / path}: cannot be read: {e.strerror}", "name the unpacked release"
            ) from e

    def mode(self, path: str) -> int:
        return (self._path / path).lstat().st_mode

    def paths(self) -> list[str]:
        found = (path for path in self._path.rglob("*") if path.is_symlink() or path.is_file())
        inside = (path.relative_to(self._path) for path in found)
        return sorted(path.as_posix() for path in inside if ".git" not in path.parts)


class Wheel:
    """A wheel, or a source archive that is a zip. Only requested files are read, of limited size."""

    def __init__(self, file: Path | IO[bytes], name: str = "") -> None:
        self.name = name or Path(file.name).name
        self._file = file

    def read(self, path: str) -> bytes | None:
        if path not in self._entries:
            return None
        with _explain_damage(f"{self.name}: {path} cannot be read"):
            return read_member(self._archive, self._entries[path])

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
        with _explain_damage(f"{self.name}: not a whole wheel"):
            return open_zip(open_regular(self._file) if isinstance(self._file, Path) else self._file)


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
        with _explain_damage(f"{self.name}: not a whole archive"), open_regular(self._path) as packed:
            limit = UnpackLimit(os.fstat(packed.fileno()).st_size)
            limit.most = min(limit.most, _MAX_TAR)
            stream = LimitedFile(_decompressed(packed), _MAX_HEADER, limit.most + _MAX_TAR)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                files = _read_members(archive, limit)
            while stream.read(_MAX_HEADER):
                pass  # compares the checksum
        return files


def _decompressed(packed: IO[bytes]) -> IO[bytes] | io.BufferedIOBase:
    """Return the content of a file, which its first bytes say how to decompress: names are not reliable."""
    start = packed.read(3)
    packed.seek(0)
    if start[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=packed)
    if start == b"BZh":
        return bz2.BZ2File(packed)
    return lzma.LZMAFile(packed) if start == b"\xfd7z" else packed


def _read_members(archive: tarfile.TarFile, limit: UnpackLimit) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of each file of an archive by its path below the top folder."""
    files: dict[str, tuple[int, bytes]] = {}
    while member := archive.next():
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps the headers of all
        limit.add(member.size)
        path = _below_top_folder(member.name)
        if member.issym():
            files[path] = stat.S_IFLNK, os.fsencode(member.linkname)
        elif member.islnk():
            files[path] = files[_below_top_folder(member.linkname)]
        elif content := archive.extractfile(member):
            files[path] = member.mode | stat.S_IFREG, b"".join(iter(partial(content.read, _MAX_HEADER), b""))
    return files


def _below_top_folder(name: str) -> str:
    return name.removeprefix("./").partition("/")[2]


@contextmanager
def _explain_damage(problem: str) -> Iterator[None]:
    """Raise UsageError with ``problem`` for what a damaged, crafted or too large archive raises."""
    try:
        yield
    except ArchiveTooLarge as e:
        raise UsageError(f"{problem}: {e}", "check where it is from; unpack it, and name the folder") from e
    except _DAMAGED as e:
        raise UsageError(f"{problem}: {e}", "download the file again") from e
    except OSError as e:
        raise UsageError(f"{problem}: {e.strerror or e}", "name a file that can be read") from e
