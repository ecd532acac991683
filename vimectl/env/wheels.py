"""The folder of downloaded files: what of a lock is there already, told by digest."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from vimectl.stacks.lock import Pin
from vimectl.util.hashing import sha256


def missing(pins: Iterable[Pin], wheels: Path) -> list[Pin]:
    """Return the pins none of whose files is in the folder."""
    present = {sha256(path) for path in wheels.glob("*.whl")}
    return [pin for pin in pins if not pin.hashes & present]


def keep(temporary: Path, wheels: Path) -> None:
    """Link the files that a running pip has in its temporary folder into the folder of wheels.

    pip hands over its downloads all together at the end, and deletes them when it is cut off. A file
    linked before it was complete is told by its digest later. Where links are not possible, pip's own
    copy at the end remains.
    """
    # Not Path.glob: that of Python 3.11 raises when pip deletes a folder meanwhile.
    for path in glob.glob(f"{glob.escape(str(temporary))}/pip-*/*.whl"):
        with suppress(OSError):
            os.link(path, wheels / os.path.basename(path))
