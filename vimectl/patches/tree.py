"""Read the files of a target, a directory or a wheel, and say what may not be written through."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vimectl.patches.blobs import NOTHING, Found, blob_id, content_at, found_at, git_mode

if TYPE_CHECKING:
    from vimectl.patches.sources import Wheel


def is_wheel(location: Path) -> bool:
    return location.suffix == ".whl" and location.is_file()


@lru_cache(maxsize=8)
def wheel(location: Path) -> Wheel:
    """Open a wheel, once per process. What is read of a damaged one raises UsageError."""
    from vimectl.patches.sources import Wheel

    return Wheel(location)


def content(location: Path, path: str) -> bytes | None:
    """Return what git would store for a file of a target: its bytes, a link's target, None for nothing."""
    return wheel(location).read(path) if is_wheel(location) else content_at(location / path)


def found(location: Path, path: str) -> Found:
    """Return blob id and git mode of a file of a target."""
    if not is_wheel(location):
        return found_at(location / path)
    data = wheel(location).read(path)
    return NOTHING if data is None else Found(blob_id(data), git_mode(wheel(location).mode(path)))


def obstacle(location: Path, path: str) -> str | None:
    """Say why nothing may be written to ``path``, or None when nothing is in the way.

    A symbolic link in the place of the file itself is not judged here: a series may be about one.
    """
    if is_wheel(location):
        return None
    place = os.path.join(location, path)
    folder = os.path.dirname(place)
    real = os.path.realpath(folder)
    if real != str(location) and not real.startswith(f"{str(location).rstrip('/')}/"):
        return f"its folder is a symbolic link out of the target, to {real}"
    try:
        mode = os.lstat(place).st_mode
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return "a file is in the place of a folder on its way"
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        return None
    return "a folder is in its place" if stat.S_ISDIR(mode) else "something that is no file is in its place"
