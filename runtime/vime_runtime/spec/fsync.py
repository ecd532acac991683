"""Wait for the disk. `vimectl patch` imports this, and nothing else of what writes files."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a directory, are on the disk.

    A rename is on the disk only when its directory is.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
