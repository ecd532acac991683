"""Find where a file went that a release no longer has: by its name, and by how much of it is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

from vimectl.patches.patchfile.paths import wrong_path
from vimectl.patches.sources import Sources

# Looked into at most: of a wheel on a server each is a request.
_MOST = 12
# What git calls a rename.
_ALIKE = 0.5


@dataclass(frozen=True)
class Place:
    """A file of the new release, and how much of both files' lines is the same, from 0 to 1."""

    path: str
    likeness: float
    content: bytes


def find(path: str, content: bytes, old: Sources, new: Sources) -> Place | None:
    """Return the file of ``new`` that most likely is the ``path`` of ``old``; None when none is much like it.

    Only files that the old release did not have come into question.
    """
    known = set(old.paths())
    suffix = PurePosixPath(path).suffix
    added = [one for one in _safe(new.paths()) if one not in known and PurePosixPath(one).suffix == suffix]
    nearest = sorted(added, key=lambda one: (-_kinship(path, one), one))[:_MOST]
    places = [
        Place(one, likeness(content, data), data) for one in nearest if (data := new.read(one)) is not None
    ]
    best = max(places, key=lambda place: place.likeness, default=None)
    return best if best and best.likeness >= _ALIKE else None


def _safe(paths: Iterable[str]) -> Iterator[str]:
    """The paths at which something may be written: an archive can name others."""
    return (path for path in paths if wrong_path(path) is None)


def holding(lines: list[bytes], path: str, old: Sources, new: Sources) -> str | None:
    """Return a file of ``new`` that has any of these lines and had none: beside ``path``, or a new one."""
    known = set(old.paths())
    one = PurePosixPath(path)
    near = [
        other for other in _safe(new.paths()) if other != path and PurePosixPath(other).suffix == one.suffix
    ]
    beside = [other for other in near if PurePosixPath(other).parent == one.parent]
    added = sorted((other for other in near if other not in known), key=lambda other: -_kinship(path, other))
    wanted = set(lines)
    for other in dict.fromkeys(beside + added[:_MOST]):
        there = wanted.intersection(BytesIO(new.read(other) or b""))
        if there - set(BytesIO(old.read(other) or b"")):
            return other
    return None


def likeness(one: bytes, other: bytes) -> float:
    """Return the share of lines that two files have in common, in any order; blank lines do not count."""
    mine, its = (Counter(line for line in BytesIO(data) if line.strip()) for data in (one, other))
    total = mine.total() + its.total()
    return 2 * (mine & its).total() / total if total else 1.0


def _kinship(path: str, other: str) -> float:
    """How much two paths are alike: the name counts most, then the folders they share."""
    one, two = PurePosixPath(path), PurePosixPath(other)
    words, others = set(one.stem.split("_")), set(two.stem.split("_"))
    same_name = 4.0 if one.name == two.name else 2.0 * len(words & others) / len(words | others)
    shared = set(one.parts[:-1]) & set(two.parts[:-1])
    return same_name + len(shared) / max(len(one.parts), len(two.parts))
