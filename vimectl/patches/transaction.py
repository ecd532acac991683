"""Replace several files in several directories, all or none, even if the process is killed at any point.

1. Every new content and a copy of every old one is written to ``.vimectl/stage/`` in its target, together
   with the journal for both directions; all of it is synced.
2. The user's state folder records that this user begins the change (see own_changes).
3. The journal is committed: in each further directory a pointer to the first, then in the first the complete
   list. This last rename decides: before it nothing was changed, after it the change will be finished, by
   this process or by a later command that changes the directory.
4. Each file is replaced by a rename, and the directories are synced.
5. The stages are removed, then the pointers, the journal and the record.

An error while files are replaced reverses the journal, and the same moves restore the old state.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError
from vime_runtime.spec.regular_files import open_regular

from vimectl.patches import own_changes, transaction_journal
from vimectl.patches.applied_state import STAGE
from vimectl.patches.blobs import id_of
from vimectl.patches.file_attributes import FileAttributes, attributes_in, attributes_of
from vimectl.patches.file_replacement import replace_files, write_staged
from vimectl.patches.target_lock import is_locked, locked
from vimectl.patches.target_tree import FOLDER, blocker_in, file_id_in, nearest_folder, open_tree
from vimectl.patches.transaction_journal import (
    BACK,
    FORWARD,
    POINTER,
    FileMove,
    TransactionJournal,
    is_pending,
)
from vimectl.util.directory_tree import DirectoryTree, OutsideTreeError


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


def execute(action: str, steps: Sequence[FileStep], folders: Sequence[Path] = ()) -> list[str]:
    """Perform all steps or none. The caller holds the locks of all locations (``target_lock.locked``).

    ``folders``, which are in the locations, are removed when they are empty afterwards.

    Returns messages about attributes of files that could not be kept.

    Raises:
        CheckFailed: a file is not as a step expects it, or an interrupted change has not been recovered;
            nothing was changed.
        MissingRequirement: the file system refused; the old state is restored, or the message says that
            `vimectl patch recover` will do that.
    """
    roots = sorted({step.location for step in steps})
    for root in roots:
        if is_pending(root):
            raise CheckFailed(f"{root}: a change was interrupted", "vimectl patch recover finishes it")
        own_changes.forget(root, is_pending)
    with _opened(roots) as trees:
        lost: list[str] = []
        try:
            journal = _prepare(action, steps, trees, folders, lost)
            for tree in list(trees.values())[1:]:
                transaction_journal.commit(tree, POINTER)
            transaction_journal.commit(trees[roots[0]], FORWARD)
        except BaseException as e:
            with suppress(OSError):
                _discard(trees)
            if isinstance(e, OSError):
                left = any(map(is_pending, roots))
                hint = "vimectl patch recover removes the leftovers" if left else "nothing was changed"
                raise MissingRequirement(f"cannot prepare the change: {e}", hint) from e
            raise
        try:
            replace_files(journal, trees)
        except (OSError, CheckFailed) as e:
            _roll_back(journal, trees, e)
        with suppress(OSError):  # the change is done; the next change removes the rest of the bookkeeping
            _discard(trees)
    return lost


def recover(location: Path) -> str | None:
    """Finish or undo what an interrupted command left, and return a message; None when nothing was left.

    Waits for a change in progress. A lock that its process left is removed without a message.

    Raises:
        CheckFailed: a file was edited since (the message says where both of its contents are), or this user
            did not begin the change.
        MissingRequirement: the file system refused; the next command tries again.
    """
    if not is_pending(location):
        if transaction_journal.needs_recovery(location):
            with suppress(OSError, VimeError), locked([location], wait=0):
                pass  # releasing a lock removes its file and the empty folder
        return None
    if not is_locked(location):
        transaction_journal.read(location)  # before the lock, which another user may not be able to take
    with locked([location]):
        journal = transaction_journal.read(location)
    roots = journal.roots if journal else (location,)
    with locked([*roots, location]):
        if not is_pending(location):
            return None  # it was not interrupted: its process has finished it by now
        try:
            return _finish(location)
        except OSError as e:
            message = f"{location}: an interrupted change cannot be finished: {e}"
            raise MissingRequirement(message, "correct that, and run vimectl patch recover") from e


def _finish(location: Path) -> str:
    journal = transaction_journal.read(location)
    if journal is None:
        with _opened([location]) as trees:
            _discard(trees)
        return f"{location}: an interrupted change had not begun; its preparation was removed"
    with _opened([root for root in journal.roots if journal.includes(root)]) as trees:
        replace_files(journal, trees)
        _discard(trees, journal.token)
    how = "finished" if journal.forward else "undone"
    return f"{location}: an interrupted {journal.action} was {how}"


@contextmanager
def _opened(roots: Sequence[Path]) -> Iterator[dict[Path, DirectoryTree]]:
    with ExitStack() as stack:
        yield {root: stack.enter_context(open_tree(root)) for root in roots}


def _discard(trees: Mapping[Path, DirectoryTree], token: str = "") -> None:  # nosec B107 # no secret
    transaction_journal.discard(trees)
    own_changes.forget(next(iter(trees)), is_pending, token)


def _prepare(
    action: str,
    steps: Sequence[FileStep],
    trees: Mapping[Path, DirectoryTree],
    folders: Sequence[Path],
    lost: list[str],
) -> TransactionJournal:
    """Write everything that the change needs, and return its journal."""
    roots = list(trees)
    for root, tree in trees.items():
        # One file of each folder is enough.
        paths = {os.path.dirname(step.path): step.path for step in steps if step.location == root}
        for path in paths.values():
            _refuse_read_only(tree, path)
        tree.make_folder(STAGE)
    moves = tuple(
        _stage(index, roots.index(step.location), step, trees, lost) for index, step in enumerate(steps)
    )
    relative_folders = tuple(
        (index, str(path.relative_to(root)))
        # The innermost first: a folder can be removed only after those in it.
        for path in sorted(folders, reverse=True)
        for index, root in enumerate(roots)
        if path.is_relative_to(root)
    )
    token = os.urandom(16).hex()
    journal = TransactionJournal(action, True, token, tuple(roots), moves, relative_folders)
    forward, back, pointer = journal.dump(True), journal.dump(False), journal.pointer()
    trees[roots[0]].create(f"{STAGE}/{FORWARD}", forward)
    trees[roots[0]].create(f"{STAGE}/{BACK}", back)
    for root in roots[1:]:
        trees[root].create(f"{STAGE}/{POINTER}", pointer)
    for tree in trees.values():
        with tree.folder(STAGE) as stage:
            for name in sorted(os.listdir(stage)):
                try:
                    with open_regular(name, dir_fd=stage, follow=False) as file:
                        os.fsync(file.fileno())
                except OSError as e:
                    if e.errno != errno.ELOOP:  # a symbolic link is on the disk with its folder
                        raise
        # Also each folder on the path to the files.
        for folder in (STAGE, FOLDER, ""):
            tree.sync(folder)
    own_changes.remember(token, roots, (forward, back, pointer))
    return journal


def _stage(
    index: int, root: int, step: FileStep, trees: Mapping[Path, DirectoryTree], lost: list[str]
) -> FileMove:
    tree, file = trees[step.location], step.location / step.path
    if blocker := blocker_in(tree, step.path):
        raise CheckFailed(f"{file} cannot be changed: {blocker}", "put a file in its place, and try again")
    blob, mode = file_id_in(tree, step.path)
    if blob != id_of(step.before):
        message = f"{file} has just been changed by another process"
        raise CheckFailed(message, "nothing was changed; try again")
    wanted = step.mode if step.mode is not None else mode
    if mode is not None and stat.S_ISLNK(mode) != stat.S_ISLNK(wanted or 0):
        raise CheckFailed(f"{file} is a symbolic link", "put a file in its place, and try again")
    attributes, modified = _attributes(tree, step.path, mode, wanted)
    base = f"{STAGE}/{index}"
    if step.before is not None:
        write_staged(tree, f"{base}.before", step.before, attributes, mode)
    if step.after is not None:
        same = step.after == step.before
        names = write_staged(tree, f"{base}.after", step.after, attributes, wanted, same, modified)
        lost += [f"{file}: the attribute {name} could not be kept" for name in names]
        staged = tree.lstat(f"{base}.after")
        wanted = staged.st_mode if staged else None
    return FileMove(root, step.path, blob, id_of(step.after), mode, None if step.after is None else wanted)


def _attributes(
    tree: DirectoryTree, path: str, mode: int | None, wanted: int | None
) -> tuple[FileAttributes, float | None]:
    """Return the attributes to keep and the modification time of a file; None: it is new.

    A new file gets the owner of the nearest folder, and what its default ACL says.
    """
    if mode is None:
        with tree.folder(nearest_folder(tree, path)) as folder:
            return attributes_in(folder, bool((wanted or 0) & stat.S_IXUSR)), None
    if stat.S_ISLNK(mode):
        status = tree.lstat(path)
        assert status is not None
        return FileAttributes(status.st_uid, status.st_gid, {}), None
    with tree.open(path) as file:
        return attributes_of(file.fileno()), os.fstat(file.fileno()).st_mtime


def _refuse_read_only(tree: DirectoryTree, path: str) -> None:
    """Check write access before the change starts: even root cannot write to a read-only mount."""
    for folder in (nearest_folder(tree, path), os.path.join(os.path.dirname(path), "__pycache__")):
        with suppress(FileNotFoundError, NotADirectoryError, OutsideTreeError), tree.folder(folder) as opened:
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=opened):
                hint = "nothing was changed; make it writable, or become its owner"
                raise MissingRequirement(f"{tree.root / folder} is read-only", hint)


def _roll_back(journal: TransactionJournal, trees: Mapping[Path, DirectoryTree], error: Exception) -> None:
    """Undo a change that failed half-way, and raise the error."""
    try:
        transaction_journal.commit(trees[journal.roots[0]], BACK)  # written before, on a full disk too
        replace_files(journal._replace(forward=False), trees)
    except (OSError, CheckFailed) as e:
        raise MissingRequirement(
            f"cannot replace a file: {error}; and then: {e}",
            "when the disk can be written again, vimectl patch recover finishes this or undoes it",
        ) from error
    with suppress(OSError):
        _discard(trees)
    raise MissingRequirement(f"cannot replace a file: {error}", "everything is as it was before") from error
