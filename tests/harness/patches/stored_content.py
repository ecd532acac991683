"""Read what git stores for a path."""

from __future__ import annotations

import os
from pathlib import Path


def content_at(path: Path) -> bytes | None:
    """Return a file's bytes, a symbolic link's target, None for nothing."""
    if path.is_symlink():
        return os.readlink(os.fsencode(path))  # pathlib would drop a slash at the end
    return path.read_bytes() if path.exists() else None
