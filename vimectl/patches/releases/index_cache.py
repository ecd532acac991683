"""The files of a package as its index last listed them: the cache is of use without a network."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import platformdirs

from vimectl.patches.releases.index import File


def cache() -> Path:
    """The folder in the user's cache in which everything about releases is kept."""
    return Path(platformdirs.user_cache_dir("vimectl")) / "releases"


def remember(package: str, files: Sequence[File]) -> None:
    """Keep a complete listing."""
    put(_path(package), json.dumps([asdict(file) for file in files]).encode())


def put(path: Path, content: bytes) -> None:
    """Write a file of the cache, whole or not at all; a cache that cannot be written is none."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as fresh:
            try:
                fresh.write(content)
                fresh.flush()
                os.replace(fresh.name, path)
            except BaseException:
                os.unlink(fresh.name)
                raise


def remembered(package: str) -> list[File]:
    """Return the last complete listing; empty when there is none that this version of the tool wrote."""
    try:
        entries = json.loads(_path(package).read_text(encoding="utf-8"))
        return [File(**{**entry, "build": tuple(entry["build"])}) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _path(package: str) -> Path:
    return cache() / "listings" / f"{package}.json"
