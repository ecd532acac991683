"""The folder of downloaded files: what of a lock is there already, told by digest."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from vimectl.stack.lock import Pin

_CHUNK = 1024 * 1024


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def missing(pins: Iterable[Pin], wheels: Path) -> list[Pin]:
    """Return the pins none of whose files is in the folder."""
    present = {sha256(path) for path in wheels.glob("*.whl")}
    return [pin for pin in pins if not pin.hashes & present]


def salvage(pins: Iterable[Pin], temporary: Path, wheels: Path) -> None:
    """Move the complete files that a killed pip left in its temporary folder into the folder of wheels."""
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = frozenset[str]().union(*(pin.hashes for pin in pins))
    for path in temporary.rglob("*.whl"):
        if sha256(path) in wanted:
            path.replace(wheels / path.name)
    shutil.rmtree(temporary, ignore_errors=True)
