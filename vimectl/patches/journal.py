"""A change that was decided, as it is written down so that any later command can finish it.

``.vimectl/journal.json`` in the first directory of the change holds all of it, in each other directory a
pointer to the first. ``stage/`` beside it holds the contents: ``<index>.before`` and ``<index>.after``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from vime_runtime.spec.atomic_io import sync
from vime_runtime.spec.errors import CheckFailed

from vimectl.patches.applied_state import folder

FORWARD, BACK, POINTER = "forward.json", "back.json", "pointer.json"


@dataclass(frozen=True)
class Move:
    """One file of a change: blob ids and ``st_mode`` before and after (None: no such file). ``root`` is an
    index into the journal's roots."""

    root: int
    path: str
    before: str | None
    after: str | None
    before_mode: int | None
    after_mode: int | None

    def side(self, forward: bool) -> tuple[str | None, int | None]:
        return (self.after, self.after_mode) if forward else (self.before, self.before_mode)


@dataclass(frozen=True)
class Journal:
    """``folders``, each a root and a path, exist only for files in them and go with the last of these.
    ``token`` is in the pointers too: it says that they mean this change."""

    action: str
    forward: bool
    token: str
    roots: tuple[Path, ...]
    moves: tuple[Move, ...]
    folders: tuple[tuple[int, str], ...] = ()

    def dump(self, forward: bool) -> bytes:
        data = {**asdict(self), "forward": forward, "roots": [str(root) for root in self.roots]}
        return json.dumps(data, indent=2).encode()

    def pointer(self) -> bytes:
        return json.dumps({"first": str(self.roots[0]), "token": self.token}).encode()


def path_in(root: Path) -> Path:
    return folder(root) / "journal.json"


def stage(root: Path) -> Path:
    return folder(root) / "stage"


def pending(root: Path) -> bool:
    """Whether a change of this directory is under way, or was left behind."""
    return any(os.path.lexists(path) for path in (path_in(root), stage(root)))


def decide(root: Path, prepared: str) -> None:
    """Put a prepared file (see the names above) in the place of the journal, and on the disk."""
    os.replace(stage(root) / prepared, path_in(root))
    sync(folder(root))


def read(location: Path) -> Journal | None:
    """Return the decided change that concerns ``location``, or None when none was decided.

    Raises CheckFailed when it cannot be read, or is not one that may be executed here.
    """
    data = _data(location)
    if data is None:
        return None
    first = location
    if "first" in data:
        first = Path(data["first"])
        if not first.is_dir():
            raise CheckFailed(
                f"{location}: a change that began in {first} was interrupted, and that is not there now",
                f"make {first} available, and try again",
            )
        token, data = data.get("token"), _data(first)
        # Pointers are removed before the journal they point to, so that without it nothing was decided.
        if data is None or data.get("token") != token:
            return None
    try:
        # The first directory may have been moved or mounted elsewhere since.
        roots = (first, *map(Path, data["roots"][1:]))
        moves = tuple(Move(**move) for move in data["moves"])
        folders = tuple((int(root), str(path)) for root, path in data["folders"])
        inside = [(move.root, move.path) for move in moves] + list(folders)
        if not all(0 <= root < len(roots) and _inside(path) for root, path in inside):
            raise ValueError("a path leads out of the target")
        return Journal(data["action"], bool(data["forward"]), str(data["token"]), roots, moves, folders)
    except (KeyError, TypeError, ValueError) as e:
        raise _foreign(first) from e


def means(journal: Journal, root: Path) -> bool:
    """Whether a directory agrees to be changed by a journal: it is its first, or points to it. No longer so
    when the change was finished there; never so when the journal came with files from somewhere else."""
    if root == journal.roots[0]:
        return True
    data = _data(root)
    return data is not None and data.get("token") == journal.token


def discard(roots: Sequence[Path]) -> None:
    """Remove stages, then pointers, then the journal, so that the journal alone tells what was decided."""
    for root in roots:
        for path in (stage(root), folder(root) / "original"):
            if path.is_dir() and (path == stage(root) or not any(path.iterdir())):
                shutil.rmtree(path)
    for root in reversed(roots):
        path_in(root).unlink(missing_ok=True)
        sync(folder(root))


def _data(location: Path) -> dict[str, Any] | None:
    path = path_in(location)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_bytes())
    except ValueError as e:
        raise _foreign(location) from e
    if not isinstance(data, dict):
        raise _foreign(location)
    return data


def _inside(path: str) -> bool:
    return not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def _foreign(location: Path) -> CheckFailed:
    return CheckFailed(
        f"{path_in(location)}: not a journal of this tool",
        f"if nothing in {folder(location)} is worth keeping, remove it",
    )
