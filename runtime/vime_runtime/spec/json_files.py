"""Read JSON objects, and append to files of JSON lines."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.private_values import hide
from vime_runtime.spec.regular_files import read_regular

# More than the index of any checkpoint.
_MAX_BYTES = 100_000_000


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """Read a JSON object from a file. Raises UsageError with ``hint`` that names the file and line."""
    try:
        document = parse_json(read_regular(path, _MAX_BYTES))
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}", hint) from e
    except ValueError as e:
        raise UsageError(f"{path}: not readable as JSON: {e}", hint) from e
    if not isinstance(document, dict):
        raise UsageError(f"{path}: expected a JSON object, found {type(document).__name__}", hint)
    return document


def parse_json(text: bytes) -> Any:
    """Parse JSON in UTF-8. Raises ValueError, also when it is nested too deeply."""
    try:
        return json.loads(text.decode())
    except RecursionError as e:
        raise ValueError("nested too deeply") from e


def read_object(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; empty if it cannot be read or is incomplete, as while it is written."""
    try:
        found = parse_json(read_regular(path, _MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class JsonLines:
    """A file of JSON lines without a buffer: what did not fit on the disk is not written again later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab+", buffering=0)
        # A killed process, or a full disk, may have left half a line.
        self._torn = self._file.seek(0, os.SEEK_END) > 0 and not self._ends_with_newline()

    def _ends_with_newline(self) -> bool:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"

    def append(self, row: dict[str, Any]) -> None:
        """Append one line, without private values. Raises OSError with the path if not all is written."""
        line = b"\n" * self._torn + hide(json.dumps(row)).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as e:
            raise OSError(e.errno, e.strerror, str(self.path)) from None
        self._torn = written < len(line)
        if self._torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def sync(self) -> None:
        """Wait until the lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
