"""Write down a change before it starts, so that any later command can finish it.

``.vimectl/journal.json`` in the first directory of the change describes all of it; each other directory has
a pointer to the first. ``.vimectl/stage/`` holds the contents as ``<index>.before`` and ``<index>.after``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vime_runtime.spec.errors import CheckFailed
from vime_runtime.spec.fsync import sync

from vimectl.patches.applied_state import bookkeeping_folder, object_folder
from vimectl.patches.blobs import FileId

FORWARD, BACK, POINTER = "forward.json", "back.json", "pointer.json"


class FileMove(NamedTuple):
    """One file of a change: blob ids and ``st_mode`` before and after (None: no such file). ``root`` is an
    index into the journal's roots."""

    root: int
    path: str
    before: str | None
    after: str | None
    before_mode: int | None
    after_mode: int | None

    def version(self, forward: bool) -> FileId:
        return FileId(self.after, self.after_mode) if forward else FileId(self.before, self.before_mode)


class TransactionJournal(NamedTuple):
    """A change of files in some directories (``roots``).

    ``forward`` is its direction: to the new state, or back to the old one. ``folders``, as (root, path),
    are removed with the last file in them. ``token`` is in the pointers too and ties them to this change.
    """

    action: str
    forward: bool
    token: str
    roots: tuple[Path, ...]
    moves: tuple[FileMove, ...]
    folders: tuple[tuple[int, str], ...] = ()

    def dump(self, forward: bool) -> bytes:
        roots, moves = [str(root) for root in self.roots], [move._asdict() for move in self.moves]
        data = {**self._asdict(), "forward": forward, "roots": roots, "moves": moves}
        return json.dumps(data, indent=2).encode()

    def pointer(self) -> bytes:
        return json.dumps({"first": str(self.roots[0]), "token": self.token}).encode()

    def includes(self, root: Path) -> bool:
        """Return True if a directory takes part: it is the first, or has a pointer to this change.

        It no longer does once the change is finished there, and never does if the journal came with files
        from another machine.
        """
        if root == self.roots[0]:
            return True
        data = _read(root)
        return data is not None and data.get("token") == self.token


def journal_path(root: Path) -> Path:
    return bookkeeping_folder(root) / "journal.json"


def stage_folder(root: Path) -> Path:
    return bookkeeping_folder(root) / "stage"


def is_pending(root: Path) -> bool:
    """Return True if a change of this directory is in progress or was interrupted."""
    return any(os.path.lexists(path) for path in (journal_path(root), stage_folder(root)))


def needs_recovery(root: Path) -> bool:
    """Return True if a command left a change or its lock in this directory."""
    folder = bookkeeping_folder(root)
    return is_pending(root) or (folder.is_dir() and (not os.listdir(folder) or (folder / "lock").exists()))


def commit(root: Path, prepared: str) -> None:
    """Make a prepared file in the stage the journal of a directory, durably."""
    os.replace(stage_folder(root) / prepared, journal_path(root))
    sync(bookkeeping_folder(root))


def read(location: Path) -> TransactionJournal | None:
    """Return the committed change that includes ``location``, or None when none was committed.

    Raises CheckFailed when it is unreadable, or may not be executed here.
    """
    data = _read(location)
    if data is None:
        return None
    first = location
    if "first" in data:
        first = Path(data["first"])
        if not first.is_dir():
            raise CheckFailed(
                f"{location}: a change that started in {first} was interrupted, and that is not there now",
                f"make {first} available, and try again",
            )
        token, data = data.get("token"), _read(first)
        # Pointers are removed before the journal they point to: without the journal, nothing was committed.
        if data is None or data.get("token") != token:
            return None
    try:
        # The first directory may have been moved or mounted elsewhere since.
        roots = (first, *map(Path, data["roots"][1:]))
        moves = tuple(FileMove(**move) for move in data["moves"])
        folders = tuple((int(root), str(path)) for root, path in data["folders"])
        for root, path in [(move.root, move.path) for move in moves] + list(folders):
            pure = PurePosixPath(path)
            if not 0 <= root < len(roots) or pure.is_absolute() or ".." in pure.parts:
                raise ValueError("a path leads out of the target")
        forward, token = bool(data["forward"]), str(data["token"])
        return TransactionJournal(data["action"], forward, token, roots, moves, folders)
    except (KeyError, TypeError, ValueError) as e:
        raise _not_ours(first) from e


def discard(roots: Sequence[Path]) -> None:
    """Remove stages, then pointers, then the journal, so that the journal alone says what was committed."""
    import shutil  # loads every compression; commands that only read do not need it

    for root in roots:
        if stage_folder(root).is_dir():
            shutil.rmtree(stage_folder(root))
        if object_folder(root).is_dir() and not any(object_folder(root).iterdir()):
            shutil.rmtree(object_folder(root))
    for root in reversed(roots):
        journal_path(root).unlink(missing_ok=True)
        sync(bookkeeping_folder(root))


def _read(location: Path) -> dict[str, Any] | None:
    path = journal_path(location)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_bytes())
    except ValueError as e:
        raise _not_ours(location) from e
    if not isinstance(data, dict):
        raise _not_ours(location)
    return data


def _not_ours(location: Path) -> CheckFailed:
    return CheckFailed(
        f"{journal_path(location)}: not a journal of this tool",
        f"if nothing in {bookkeeping_folder(location)} is worth keeping, remove it",
    )
