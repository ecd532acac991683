"""Bring every file of a committed change to its target version. A second call after a crash completes it.

Written files keep the owner of the file that they replace, or get that of their folder.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed
from vime_runtime.spec.fsync import sync

from vimectl.patches.applied_state import bookkeeping_folder
from vimectl.patches.blobs import FileId, file_id_at
from vimectl.patches.target import write_blocker
from vimectl.patches.transaction_journal import TransactionJournal, stage_folder

# A folder may stay when it is not empty, in use, absent, or something else is in its place.
_FOLDER_STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT, errno.ENOTDIR)


def replace_files(journal: TransactionJournal, roots: set[Path]) -> None:
    """Move the files in ``roots`` that do not have the target version yet, and sync what was moved.

    Raises CheckFailed when a file has neither version, or its staged replacement is damaged.
    """
    files = []
    for index, move in enumerate(journal.moves):
        root = journal.roots[move.root]
        if root not in roots:
            continue
        file = root / move.path
        files.append(file)
        wanted, other = move.version(journal.forward), move.version(not journal.forward)
        found = file_id_at(file)
        if _is_version(found, wanted, other):
            continue
        stage = stage_folder(root)
        staged = stage / f"{index}.{'after' if journal.forward else 'before'}"
        if not _is_version(found, other, wanted):
            versions = f"{stage / f'{index}.before'} or {stage / f'{index}.after'}"
            message = f"{file} was edited after an interrupted {journal.action}"
            raise CheckFailed(message, f"put {versions} in its place and try again")
        if blocker := write_blocker(root, move.path):
            message = f"{file} cannot be changed: {blocker}"
            raise CheckFailed(message, "put back what was there, and try again")
        if wanted.blob is None:
            file.unlink()
        elif file_id_at(staged).blob != wanted.blob:
            hint = f"put the right content of {file} there, and try again"
            raise CheckFailed(f"{staged} is damaged", hint)
        else:
            for made in make_folder(file.parent):
                sync(made.parent)  # or a power loss might keep the file's move but not its folder
            os.replace(staged, file)
    to_sync = {bookkeeping_folder(root) for root in roots}
    for file in files:
        to_sync.add(file.parent)
        if cache := _remove_bytecode(file):
            to_sync.add(cache)
    for number, path in journal.folders:
        folder = journal.roots[number] / path
        _remove_if_empty(folder)
        to_sync.add(folder.parent)
    for folder in sorted(to_sync):
        if folder.is_dir():
            sync(folder)


def write_file(path: Path, content: bytes, like: os.stat_result, mode: int | None) -> None:
    """Create a file with the owner of ``like`` and this ``st_mode`` (None: that of a new file).

    The content of a symbolic link is its target. The file is not synced: syncing many at once is faster.
    """
    if mode is not None and stat.S_ISLNK(mode):
        os.symlink(content, os.fsencode(path))
        _set_owner(path, like)
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(descriptor, left) :]
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid):
            os.fchown(descriptor, like.st_uid, like.st_gid)
        if mode is not None:
            os.fchmod(descriptor, stat.S_IMODE(mode))
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> list[Path]:
    """Create a folder and its missing parents, each with the owner of its parent.

    Returns the created folders, the outermost first.
    """
    made = []
    if not path.is_dir():
        made = [*make_folder(path.parent), path]
        with suppress(FileExistsError):  # mkdir's exist_ok fails if another process removes it at this moment
            path.mkdir()
        _set_owner(path, path.parent.stat())
    return made


def _set_owner(path: Path, like: os.stat_result) -> None:
    found = path.lstat()
    if (found.st_uid, found.st_gid) != (like.st_uid, like.st_gid) and os.geteuid() == 0:
        os.chown(path, like.st_uid, like.st_gid, follow_symlinks=False)


def _remove_bytecode(path: Path) -> Path | None:
    """Remove the bytecode of a source file; return its folder if there was any.

    Bytecode can outlive its source: with unchecked hashes, or if size and time happen to agree.
    """
    cache = path.parent / "__pycache__"
    if path.suffix != ".py" or cache.is_symlink() or not cache.is_dir():
        return None
    stale = [name for name in os.listdir(cache) if name.startswith(f"{path.stem}.") and name.endswith(".pyc")]
    for name in stale:
        (cache / name).unlink(missing_ok=True)
    return cache if stale else None


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that was made for files, unless it still has some.

    Raises OSError when the file system refuses for any other reason.
    """
    for path in (folder / "__pycache__", folder):
        try:
            path.rmdir()
        except OSError as e:
            if e.errno not in _FOLDER_STAYS:
                raise


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
