"""Find the torch_memory_saver libraries in a package, an unpacked wheel, a wheel file or at a path."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vimectl.errors import BadInput

_PREFIX = "torch_memory_saver"
# A hundred times the size of a real build; what is larger is not read into memory.
_LARGEST = 128 * 1024 * 1024


@dataclass(frozen=True)
class File:
    """A library file: where it is (``wheel/member`` inside a wheel) and its bytes."""

    path: str
    content: bytes


def libraries(path: Path) -> list[File]:
    """Return the libraries at ``path``: a .so, a .whl, or a directory that holds the package.

    Raises:
        BadInput: there is nothing at the path, no library in it, or a file that is none of these.
    """
    if path.is_dir():
        found = in_directory(path)
    elif not path.is_file():
        raise BadInput(f"{path}: no such file or directory")
    elif path.suffix == ".whl":
        found = list(_in_wheel(path))
    else:
        found = [_read(path)]
    if not found:
        raise BadInput(
            f"{path}: no {_PREFIX}*.so in it", "give a .so, a wheel, or the directory of the package"
        )
    return found


def in_directory(directory: Path) -> list[File]:
    """Return the libraries that belong to the package in (or called) ``directory``."""
    # The libraries lie beside the package's folder, in site-packages itself.
    place = directory.parent if directory.name == _PREFIX else directory
    found = [*place.glob(f"{_PREFIX}*.so"), *(place / _PREFIX).glob("**/*.so")]
    return [_read(path) for path in sorted(found) if path.is_file()]


def _in_wheel(wheel: Path) -> Iterator[File]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in sorted(archive.infolist(), key=lambda info: info.filename):
                if member.filename.startswith(_PREFIX) and member.filename.endswith(".so"):
                    _refuse_large(f"{wheel}/{member.filename}", member.file_size)
                    yield File(f"{wheel}/{member.filename}", archive.read(member))
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as e:
        raise BadInput(f"{wheel}: not a readable wheel: {e}") from e


def _read(path: Path) -> File:
    _refuse_large(str(path), path.stat().st_size)
    try:
        return File(str(path), path.read_bytes())
    except OSError as e:
        raise BadInput(f"{path}: cannot be read: {e.strerror}") from e


def _refuse_large(path: str, length: int) -> None:
    if length > _LARGEST:
        raise BadInput(f"{path}: {length} bytes; no build of this library is larger than {_LARGEST}")
