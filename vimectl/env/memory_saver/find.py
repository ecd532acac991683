"""Find the torch_memory_saver libraries in a package, an unpacked wheel, a wheel file or at a path."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import UsageError

PACKAGE = "torch_memory_saver"
# Twenty times the size of a real build; what is larger is not read into memory.
_LARGEST = 32 * 2**20
# The released wheels hold six.
_MOST_IN_WHEEL = 32
_MEND = "give a .so, a wheel, or the directory of the package"


@dataclass(frozen=True)
class File:
    """A library file: where it is (``wheel/member`` inside a wheel), its bytes and its size in bytes.

    ``content`` is None for a file that cannot be read; ``problem`` then says why.
    """

    path: str
    content: bytes | None
    size: int
    problem: str = ""


def libraries(path: Path) -> list[File]:
    """Return the libraries at ``path``: a .so, a .whl, or a directory that holds the package.

    Raises:
        UsageError: there is nothing at the path, no library in it, or a file that is none of these.
    """
    if path.is_dir():
        found = [read(file) for file in in_directory(path)]
    elif not path.exists():
        raise UsageError(f"{path}: no such file or directory")
    elif path.suffix == ".whl" and path.is_file():
        found = list(_in_wheel(path))
    else:
        found = [read(path)]
    if not found:
        raise UsageError(f"{path}: no {PACKAGE}*.so in it", _MEND)
    for file in found:
        if file.problem:
            raise UsageError(f"{file.path}: {file.problem}", _MEND)
    return found


def in_directory(directory: Path) -> list[Path]:
    """Return where the libraries are that belong to the package in (or called) ``directory``."""
    # The libraries lie beside the package's folder, in site-packages itself.
    place = directory.parent if directory.name == PACKAGE else directory
    found = [*place.glob(f"{PACKAGE}*.so"), *(place / PACKAGE).glob("**/*.so")]
    return [path for path in sorted(found) if not path.is_dir()]


def read(path: Path) -> File:
    """Read a library; whatever is in the way is the file's ``problem``, not an exception."""
    try:
        size = path.stat().st_size
        # A pipe or a device would be waited for, or never end.
        if not path.is_file():
            return File(str(path), None, size, "not a regular file")
        if problem := _too_large(size):
            return File(str(path), None, size, problem)
        content = path.read_bytes()
    except OSError as e:
        return File(str(path), None, 0, f"cannot be read: {e.strerror}")
    return File(str(path), content, len(content))


def _in_wheel(wheel: Path) -> Iterator[File]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [m for m in archive.infolist() if m.filename.startswith(PACKAGE)]
            members = [m for m in members if m.filename.endswith(".so")]
            if problem := _too_large(sum(m.file_size for m in members)):
                raise UsageError(f"{wheel}: its libraries: {problem}")
            if len(members) > _MOST_IN_WHEEL:
                raise UsageError(f"{wheel}: {len(members)} libraries; no wheel of this package has so many")
            for member in sorted(members, key=lambda m: m.filename):
                yield File(f"{wheel}/{member.filename}", archive.read(member), member.file_size)
    except UsageError:
        raise
    except (OSError, ValueError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as e:
        # RuntimeError is a member that is encrypted or compressed in a way that zipfile does not know.
        raise UsageError(f"{wheel}: not a readable wheel: {e}") from e


def _too_large(size: int) -> str:
    return f"{size} bytes; no build of this library is larger than {_LARGEST}" if size > _LARGEST else ""
