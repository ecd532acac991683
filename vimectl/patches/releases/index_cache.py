"""Keep data about releases in the user's cache, and the last answer of each index for use without network."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import platformdirs

from vimectl.patches.releases.index import ReleaseFile


def release_cache() -> Path:
    """Return the folder in the user's cache for all data about releases."""
    return Path(platformdirs.user_cache_dir("vimectl")) / "releases"


def write_cache_file(path: Path, content: bytes) -> None:
    """Write a file of the cache, completely or not at all. A cache that is not writable is not used."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as new:
            try:
                new.write(content)
                new.flush()
                os.replace(new.name, path)
            except BaseException:
                os.unlink(new.name)
                raise


def remember_listing(package: str, files: Sequence[ReleaseFile]) -> None:
    """Keep the complete list of a package's files."""
    write_cache_file(_path(package), json.dumps([asdict(file) for file in files]).encode())


def last_listing(package: str) -> list[ReleaseFile]:
    """Return the last complete list; empty when this version of the tool has not written one."""
    try:
        entries = json.loads(_path(package).read_text(encoding="utf-8"))
        return [ReleaseFile(**{**entry, "build": tuple(entry["build"])}) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _path(package: str) -> Path:
    return release_cache() / "listings" / f"{package}.json"
