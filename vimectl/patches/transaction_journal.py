"""Write down a change before it starts, so that a later command of the same user can finish it.

``.vimectl/journal.json`` in the first directory of the change describes all of it; each other directory has
a pointer to the first. ``.vimectl/stage/`` holds the contents as ``<index>.before`` and ``<index>.after``.
A journal counts only for the user who began the change: see own_changes.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches import own_changes
from vimectl.patches.applied_state import JOURNAL, LOCK, OBJECTS, STAGE
from vimectl.patches.blobs import FileId
from vimectl.patches.target_lock import is_locked
from vimectl.patches.target_tree import FOLDER, open_tree
from vimectl.util.directory_tree import DirectoryTree

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
        return data is not None and data["token"] == self.token


class Unfinished(NamedTuple):
    """An unfinished change of a directory. ``own``: `vimectl patch recover` completes it."""

    message: str
    hint: str
    own: bool

    @property
    def text(self) -> str:
        return f"{self.message}: {self.hint}"


def is_pending(root: Path) -> bool:
    """Return True if a change of this directory is in progress or was interrupted."""
    try:
        with open_tree(root) as tree:
            return any(tree.lstat(path) is not None for path in (JOURNAL, STAGE))
    except OSError:
        return False


def needs_recovery(root: Path) -> bool:
    """Return True if a command left a change or its lock in this directory."""
    try:
        with open_tree(root) as tree:
            names = tree.names(FOLDER)
    except OSError:
        return False
    return not names or any(os.path.basename(path) in names for path in (JOURNAL, STAGE, LOCK))


def commit(tree: DirectoryTree, prepared: str) -> None:
    """Make a prepared file in the stage the journal of a directory, durably."""
    tree.rename(f"{STAGE}/{prepared}", JOURNAL)
    tree.sync(FOLDER)


def find_unfinished(root: Path) -> Unfinished | None:
    """Return what an interrupted command left in a directory; None also while a process changes it."""
    if not is_pending(root) or is_locked(root):
        return None
    try:
        journal = read(root)
    except CheckFailed as e:
        return Unfinished(e.message, e.hint, own=False)
    if journal is None:
        what, how = "an interrupted change had not begun", "removes its preparation"
    else:
        what, how = f"an interrupted {journal.action}", "finishes it"
    return Unfinished(f"{root}: {what}", f"`vimectl patch recover` {how}", own=True)


def read(location: Path) -> TransactionJournal | None:
    """Return the committed change that includes ``location``, or None when none was committed.

    Raises CheckFailed when it is unreadable, or was not begun by this user.
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
        token, data = data["token"], _read(first)
        # Pointers are removed before the journal they point to: without the journal, nothing was committed.
        if data is None or data["token"] != token:
            return None
    # The first directory may have been moved or mounted elsewhere since.
    roots = (first, *map(Path, data["roots"][1:]))
    moves = tuple(FileMove(**move) for move in data["moves"])
    folders = tuple((root, path) for root, path in data["folders"])
    return TransactionJournal(data["action"], data["forward"], data["token"], roots, moves, folders)


def discard(trees: Mapping[Path, DirectoryTree]) -> None:
    """Remove stages, then pointers, then the journal, so that the journal alone says what was committed.

    The first directory of the change is the first of ``trees``.
    """
    for tree in trees.values():
        status = tree.lstat(STAGE)
        if status is not None and not stat.S_ISDIR(status.st_mode):
            tree.unlink(STAGE)  # it came with copied files
        elif status is not None:
            with tree.folder(STAGE) as stage:
                for name in sorted(os.listdir(stage)):
                    os.unlink(name, dir_fd=stage)
            tree.remove_folder(STAGE)
        if tree.lstat(OBJECTS) is not None and not tree.names(OBJECTS):
            tree.remove_folder(OBJECTS)
    for tree in reversed(list(trees.values())):
        with suppress(FileNotFoundError):
            tree.unlink(JOURNAL)
        tree.sync(FOLDER)


def _read(location: Path) -> dict[str, Any] | None:
    """Return a journal or pointer of this user, or None when there is none."""
    try:
        with open_tree(location) as tree:
            status = tree.lstat(JOURNAL)
            if status is None:
                return None
            if status.st_uid != os.geteuid():
                raise _of_another_user(location, status.st_uid)
            text = tree.read(JOURNAL)
        data: dict[str, Any] = json.loads(text)
        token = data["token"]
        if not own_changes.TOKEN.fullmatch(token):
            raise ValueError("not a token")
    except OSError as e:
        raise _unreadable(location, e.strerror or "cannot be read") from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise _unreadable(location, "not a journal of this tool") from e
    if not own_changes.is_own(token, text):
        raise CheckFailed(
            f"{location}: an unfinished change that this user did not begin: {own_changes.folder()} has no"
            " record of it",
            "if you began it with another HOME or XDG_STATE_HOME, run vimectl patch recover with that;"
            f" otherwise {_by_hand(location)}",
        )
    return data


def _of_another_user(location: Path, uid: int) -> CheckFailed:
    import pwd  # only for this message

    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"the user with the id {uid}"
    return CheckFailed(
        f"{location}: an unfinished change of {name}, which only {name} can finish",
        f"{name} runs: vimectl patch recover --target {location}; if that is impossible,"
        f" {_by_hand(location)}",
    )


def _unreadable(location: Path, reason: str) -> CheckFailed:
    return CheckFailed(f"{location / JOURNAL}: {reason}", f"nothing of it is used; {_by_hand(location)}")


def _by_hand(location: Path) -> str:
    """Return how to end a change that is not finished. Nothing of the journal is in it: it may be forged."""
    return (
        f"remove {location / FOLDER}, and reinstall the package (in a work tree: git checkout -- FILE of the"
        " changed files)"
    )
