"""Replace several files in several directories, all or none, even if the process is killed at any point.

1. Every new content and a copy of every old one is written to ``.vimectl/stage/`` in its target, together
   with the journal for both directions; all of it is synced.
2. The journal is committed: in each further directory a pointer to the first, then in the first the complete
   list. This last rename decides: before it nothing was changed, after it the change will be finished, by
   this process or by the next command.
3. Each file is replaced by a rename, and the directories are synced.
4. The stages are removed, then the pointers, then the journal.

An error while files are replaced reverses the journal, and the same moves restore the old state.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError
from vime_runtime.spec.fsync import sync

from vimectl.patches import transaction_journal
from vimectl.patches.applied_state import bookkeeping_folder
from vimectl.patches.blobs import file_id_at, id_of
from vimectl.patches.file_replacement import replace_files, write_file
from vimectl.patches.target import write_blocker
from vimectl.patches.target_lock import locked
from vimectl.patches.transaction_journal import (
    BACK,
    FORWARD,
    POINTER,
    FileMove,
    TransactionJournal,
    is_pending,
    stage_folder,
)


class FileStep(NamedTuple):
    """One file: ``path`` relative to ``location``, its content before and after (None: no such file).

    ``mode`` is the ``st_mode`` after; None: unchanged, or that of a new file. The content of a symbolic link
    is its target; a link is only ever replaced by a link.
    """

    location: Path
    path: str
    before: bytes | None
    after: bytes | None
    mode: int | None = None

    @property
    def changes(self) -> bool:
        return self.before != self.after or self.mode is not None


def execute(action: str, steps: Sequence[FileStep], folders: Sequence[Path] = ()) -> None:
    """Perform all steps or none. The caller holds the locks of all locations (``target_lock.locked``).

    ``folders``, which are in the locations, are removed when they are empty afterwards.

    Raises:
        CheckFailed: a file is not as a step expects it, or an interrupted change has not been recovered;
            nothing was changed.
        MissingRequirement: the file system refused; the old state is restored, or the message says that the
            next command will do that.
    """
    roots = tuple(sorted({step.location for step in steps}))
    for root in roots:
        if is_pending(root):
            raise CheckFailed(f"{root}: a change was interrupted", "vimectl patch status finishes it")
    try:
        journal = _prepare(action, steps, roots, folders)
        for root in roots[1:]:
            transaction_journal.commit(root, POINTER)
        transaction_journal.commit(roots[0], FORWARD)
    except BaseException as e:
        with suppress(OSError):
            transaction_journal.discard(roots)
        if isinstance(e, OSError):
            left = any(map(is_pending, roots))
            hint = "the next vimectl command on it removes the leftovers" if left else "nothing was changed"
            raise MissingRequirement(f"cannot prepare the change: {e}", hint) from e
        raise
    try:
        replace_files(journal, set(roots))
    except (OSError, CheckFailed) as e:
        _roll_back(journal, e)
    with suppress(OSError):  # the change is done; the next command removes the rest of the bookkeeping
        transaction_journal.discard(roots)


def recover(location: Path) -> str | None:
    """Finish or undo what an interrupted command left, and return a message; None when nothing was left.

    Waits for a change in progress. A lock that its process left is removed without a message.

    Raises:
        CheckFailed: a file was edited since (the message says where both of its contents are), or the
            journal may not be executed here.
        MissingRequirement: the file system refused; the next command tries again.
    """
    if not is_pending(location):
        if transaction_journal.needs_recovery(location):
            with suppress(OSError, VimeError), locked([location], wait=0):
                pass  # releasing a lock removes its file and the empty folder
        return None
    journal = transaction_journal.read(location)
    roots = journal.roots if journal else (location,)
    with locked([*roots, location]):
        if not is_pending(location):
            return None  # it was not interrupted: its process has finished it by now
        journal = transaction_journal.read(location)
        if journal is None:
            transaction_journal.discard((location,))
            return f"{location}: an interrupted change had not begun; its preparation was removed"
        included = [root for root in journal.roots if journal.includes(root)]
        replace_files(journal, set(included))
        transaction_journal.discard(included)
    how = "finished" if journal.forward else "undone"
    return f"{location}: an interrupted {journal.action} was {how}"


def _prepare(
    action: str, steps: Sequence[FileStep], roots: Sequence[Path], folders: Sequence[Path]
) -> TransactionJournal:
    """Write everything that the change needs, and return its journal."""
    for root in roots:
        _refuse_read_only([root / step.path for step in steps if step.location == root])
        stage_folder(root).mkdir()
    moves = tuple(_stage(index, roots.index(step.location), step) for index, step in enumerate(steps))
    relative_folders = tuple(
        (index, str(path.relative_to(root)))
        # The innermost first: a folder can be removed only after those in it.
        for path in sorted(folders, reverse=True)
        for index, root in enumerate(roots)
        if path.is_relative_to(root)
    )
    journal = TransactionJournal(action, True, os.urandom(8).hex(), tuple(roots), moves, relative_folders)
    first = stage_folder(roots[0])
    files = {first / FORWARD: journal.dump(True), first / BACK: journal.dump(False)}
    files |= {stage_folder(root) / POINTER: journal.pointer() for root in roots[1:]}
    for path, text in files.items():
        write_file(path, text, path.parent.stat(), None)
    for root in roots:
        for path in sorted(stage_folder(root).iterdir()):
            if not path.is_symlink():
                sync(path)
        # Also each folder on the path to the files.
        for folder in (stage_folder(root), bookkeeping_folder(root), root):
            sync(folder)
    return journal


def _stage(index: int, root: int, step: FileStep) -> FileMove:
    file = step.location / step.path
    if blocker := write_blocker(step.location, step.path):
        raise CheckFailed(f"{file} cannot be changed: {blocker}", "put a file in its place, and try again")
    blob, mode = file_id_at(file)
    if blob != id_of(step.before):
        message = f"{file} has just been changed by another process"
        raise CheckFailed(message, "nothing was changed; try again")
    wanted = step.mode if step.mode is not None else mode
    if mode is not None and stat.S_ISLNK(mode) != stat.S_ISLNK(wanted or 0):
        raise CheckFailed(f"{file} is a symbolic link", "put a file in its place, and try again")
    # A new file gets the owner of the nearest folder.
    like = next(path for path in (file, *file.parents) if os.path.lexists(path)).lstat()
    base = stage_folder(step.location) / str(index)
    if step.before is not None:
        write_file(base.with_suffix(".before"), step.before, like, mode)
    after = base.with_suffix(".after")
    if step.after is not None:
        write_file(after, step.after, like, wanted)
        if step.before is not None:
            _make_newer(after, like)
        wanted = after.lstat().st_mode
    return FileMove(root, step.path, blob, id_of(step.after), mode, None if step.after is None else wanted)


def _make_newer(path: Path, old: os.stat_result) -> None:
    """Give a file a later modification time, in seconds, than the one that it replaces.

    Python accepts bytecode for any source of the same size and second, also bytecode that this tool cannot
    find (PYTHONPYCACHEPREFIX).
    """
    if int(path.lstat().st_mtime) <= int(old.st_mtime) and not path.is_symlink():
        later = max(time.time(), int(old.st_mtime) + 1)
        os.utime(path, (later, later))


def _refuse_read_only(files: Sequence[Path]) -> None:
    """Check write access before the change starts: even root cannot write to a read-only mount."""
    for file in files:
        nearest = next(parent for parent in file.parents if os.path.lexists(parent))
        for path in (nearest, file.parent / "__pycache__"):
            if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
                hint = "nothing was changed; make it writable, or become its owner"
                raise MissingRequirement(f"{path} is read-only", hint)


def _roll_back(journal: TransactionJournal, error: Exception) -> None:
    """Undo a change that failed half-way, and raise the error."""
    roots = journal.roots
    try:
        transaction_journal.commit(roots[0], BACK)  # written before: a full disk cannot prevent it
        replace_files(journal._replace(forward=False), set(roots))
    except (OSError, CheckFailed) as e:
        raise MissingRequirement(
            f"cannot replace a file: {error}; and then: {e}",
            "when the disk can be written again, the next vimectl command finishes this or undoes it",
        ) from error
    with suppress(OSError):
        transaction_journal.discard(roots)
    raise MissingRequirement(f"cannot replace a file: {error}", "everything is as it was before") from error
