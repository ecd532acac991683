"""Find and read torch_memory_saver libraries: in a package, an unpacked wheel, a wheel file or at a path."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import UsageError

PACKAGE = "torch_memory_saver"
# Twenty times the size of a real build; a larger file is not read into memory.
_MAX_SIZE = 32 * 2**20
# The released wheels hold six.
_MAX_IN_WHEEL = 32
_HINT = "give a .so, a wheel, or the directory of the package"


@dataclass(frozen=True)
class LibraryFile:
    """A library file: its path (``wheel/member`` inside a wheel), contents and size in bytes.

    ``content`` is None for a file that cannot be read; ``problem`` then says why.
    """

    path: str
    content: bytes | None
    size: int
    problem: str = ""


def library_files(path: Path) -> list[LibraryFile]:
    """Read the libraries at ``path``: a .so, a .whl, or a directory that holds the package.

    Raises:
        UsageError: there is nothing at the path, no library in it, or a file that is none of these.
    """
    if path.is_dir():
        found = [read_library(file) for file in files_in(path)]
    elif not path.exists():
        raise UsageError(f"{path}: no such file or directory", _HINT)
    elif path.suffix == ".whl" and path.is_file():
        found = list(_in_wheel(path))
    else:
        found = [read_library(path)]
    if not found:
        raise UsageError(f"{path}: no {PACKAGE}*.so in it", _HINT)
    for file in found:
        if file.problem:
            raise UsageError(f"{file.path}: {file.problem}", _HINT)
    return found


def files_in(directory: Path) -> list[Path]:
    """Return the library files of the package in (or called) ``directory``."""
    # The libraries are next to the package's directory, in site-packages itself.
    parent = directory.parent if directory.name == PACKAGE else directory
    found = [*parent.glob(f"{PACKAGE}*.so"), *(parent / PACKAGE).glob("**/*.so")]
    return [path for path in sorted(found) if not path.is_dir()]


def read_library(path: Path) -> LibraryFile:
    """Read a library; an error becomes its ``problem`` instead of an exception."""
    try:
        size = path.stat().st_size
        # Reading a pipe or a device could block or never end.
        if not path.is_file():
            return LibraryFile(str(path), None, size, "not a regular file")
        if problem := _too_large(size):
            return LibraryFile(str(path), None, size, problem)
        content = path.read_bytes()
    except OSError as e:
        return LibraryFile(str(path), None, 0, f"cannot be read: {e.strerror}")
    return LibraryFile(str(path), content, len(content))


def _in_wheel(wheel: Path) -> Iterator[LibraryFile]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.infolist() if m.filename.startswith(PACKAGE)]
            members = [m for m in members if m.filename.endswith(".so")]
            if problem := _too_large(sum(m.file_size for m in members)):
                raise UsageError(f"{wheel}: its libraries: {problem}", _HINT)
            if len(members) > _MAX_IN_WHEEL:
                raise UsageError(
                    f"{wheel}: {len(members)} libraries; no wheel of this package has so many", _HINT
                )
            for member in sorted(members, key=lambda m: m.filename):
                yield LibraryFile(f"{wheel}/{member.filename}", archive.read(member), member.file_size)
    except UsageError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as e:
        # RuntimeError: a member is encrypted or has an unknown compression method.
        raise UsageError(f"{wheel}: not a readable wheel: {e}", "download it again") from e


def _too_large(size: int) -> str:
    return f"{size} bytes; no build of this library is larger than {_MAX_SIZE}" if size > _MAX_SIZE else ""
