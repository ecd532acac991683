"""Bring every file of a committed change to its target version. A second call after a crash completes it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches.applied_state import STAGE
from vimectl.patches.blobs import FileId
from vimectl.patches.file_attributes import FileAttributes, give
from vimectl.patches.target_tree import FOLDER, blocker_in, file_id_in, make_folders
from vimectl.patches.transaction_journal import TransactionJournal
from vimectl.util.directory_tree import DirectoryTree

# A folder may stay when it is not empty, in use, absent, or something else is in its place.
_FOLDER_STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def replace_files(journal: TransactionJournal, trees: Mapping[Path, DirectoryTree]) -> None:
    """Move the files in ``trees`` that do not have the target version yet, and sync what was moved.

    Raises CheckFailed when a file has neither version, or its staged replacement is damaged.
    """
    to_sync = {root: {"", FOLDER} for root in trees}
    for index, move in enumerate(journal.moves):
        root = journal.roots[move.root]
        if root not in trees:
            continue
        tree, file = trees[root], root / move.path
        to_sync[root].add(os.path.dirname(move.path))
        if blocker := blocker_in(tree, move.path):
            message = f"{file} cannot be changed: {blocker}"
            raise CheckFailed(message, "put back what was there, and try again")
        wanted, other = move.version(journal.forward), move.version(not journal.forward)
        found = file_id_in(tree, move.path)
        if _is_version(found, wanted, other):
            continue
        staged = f"{STAGE}/{index}.{'after' if journal.forward else 'before'}"
        if not _is_version(found, other, wanted):
            versions = f"{root / STAGE / f'{index}.before'} or {root / STAGE / f'{index}.after'}"
            message = f"{file} was edited after an interrupted {journal.action}"
            raise CheckFailed(message, f"put {versions} in its place and try again")
        if wanted.blob is None:
            tree.unlink(move.path)
        elif file_id_in(tree, staged).blob != wanted.blob:
            hint = f"put the right content of {file} there, and try again"
            raise CheckFailed(f"{root / staged} is damaged", hint)
        else:
            for made in make_folders(tree, os.path.dirname(move.path)):
                tree.sync(
                    os.path.dirname(made)
                )  # or a power loss might keep the file's move but not its folder
            tree.rename(staged, move.path)
    for move in journal.moves:
        root = journal.roots[move.root]
        if root in trees and (cache := _remove_bytecode(trees[root], move.path)):
            to_sync[root].add(cache)
    for number, path in journal.folders:
        root = journal.roots[number]
        if root in trees:
            _remove_if_empty(trees[root], path)
            to_sync[root].add(os.path.dirname(path))
    for root, folders in to_sync.items():
        for folder in sorted(folders):
            _sync(trees[root], folder)


def write_staged(
    tree: DirectoryTree,
    path: str,
    content: bytes,
    attributes: FileAttributes,
    mode: int | None,
    same_content: bool = True,
    newer_than: float | None = None,
) -> list[str]:
    """Create a file with these attributes and this ``st_mode`` (None: that of a new file).

    The content of a symbolic link is its target. The file is not synced: syncing many at once is faster.
    ``newer_than``: the modification time of the file is at least a second later.

    Returns the names of attributes that could not be kept.
    """
    if mode is not None and stat.S_ISLNK(mode):
        tree.symlink(content, path)
        if os.geteuid() == 0:
            tree.change_owner_of_link(path, attributes.uid, attributes.gid)
        return []
    lost: list[str] = []

    def finish(descriptor: int) -> None:
        lost.extend(give(descriptor, attributes, mode, same_content))
        if newer_than is not None and int(os.fstat(descriptor).st_mtime) <= int(newer_than):
            # Python accepts bytecode for any source of the same size and second, also bytecode that this
            # tool cannot find (PYTHONPYCACHEPREFIX).
            os.utime(descriptor, (int(newer_than) + 1, int(newer_than) + 1))

    tree.create(path, content, 0o600, finish)
    return lost


def _remove_bytecode(tree: DirectoryTree, path: str) -> str | None:
    """Remove the bytecode of a source file; return its folder if there was any.

    Bytecode can outlive its source: with unchecked hashes, or if size and time happen to agree.
    """
    folder, name = os.path.split(path)
    cache = os.path.join(folder, "__pycache__")
    status = tree.lstat(cache) if name.endswith(".py") else None
    if status is None or not stat.S_ISDIR(status.st_mode):
        return None
    start = f"{name.removesuffix('.py')}."
    stale = [one for one in tree.names(cache) if one.startswith(start) and one.endswith(".pyc")]
    for one in stale:
        with suppress(FileNotFoundError):
            tree.unlink(f"{cache}/{one}")
    return cache if stale else None


def _remove_if_empty(tree: DirectoryTree, folder: str) -> None:
    """Remove a folder that was made for files, unless it still has some.

    Raises OSError when the file system refuses for any other reason.
    """
    for path in (f"{folder}/__pycache__", folder):
        try:
            tree.remove_folder(path)
        except OSError as e:
            if e.errno not in _FOLDER_STAYS:
                raise


def _sync(tree: DirectoryTree, folder: str) -> None:
    with suppress(FileNotFoundError, NotADirectoryError):  # it was removed
        tree.sync(folder)


def _is_version(found: FileId, wanted: FileId, other: FileId) -> bool:
    """Compare a file with a version. Permissions count only if nothing else distinguishes the two versions:
    the user may change them at any time."""
    if found.blob != wanted.blob:
        return False
    if wanted.st_mode is None or found.st_mode is None:
        return True
    if wanted.blob == other.blob:
        return found.st_mode == wanted.st_mode
    return stat.S_IFMT(found.st_mode) == stat.S_IFMT(wanted.st_mode)
