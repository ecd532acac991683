"""Replace several files, in several directories, all or nothing, whenever it is killed.

1. Every new content and a copy of every old one is written to ``.vimectl/stage/`` in its target, and beside
   them the journal, for the way forward and for the way back; all of it is synced.
2. The journal is put in its place: in each further directory a pointer to the first one, then in the first
   the whole list. That last rename is the moment of decision: before it nothing has happened, after it
   the change will be finished, by this process or by the next command.
3. Each file is replaced by rename, and the directories are synced.
4. The stages are removed, then the pointers, then the journal.

An error while files are replaced turns the journal around, and the same moves lead back.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vime_runtime.spec.atomic_io import sync
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.patches import file_replacement, tree
from vimectl.patches import journal as journals
from vimectl.patches.applied_state import folder
from vimectl.patches.blobs import id_of
from vimectl.patches.durable import write
from vimectl.patches.journal import BACK, FORWARD, POINTER, Journal, Move, pending, stage


@dataclass(frozen=True)
class Step:
    """One file: ``path`` relative to ``location``, its content before and after (None: no such file).

    ``mode`` is the ``st_mode`` after; None: that which the file has, or any new file. The content of a
    symbolic link is its target; a link is only ever replaced by a link.
    """

    location: Path
    path: str
    before: bytes | None
    after: bytes | None
    mode: int | None = None

    @property
    def changes(self) -> bool:
        return self.before != self.after or self.mode is not None


def execute(action: str, steps: Sequence[Step], folders: Sequence[Path] = ()) -> None:
    """Take every step or none. The caller holds the locks of all locations (``lock.locked``).

    ``folders``, which lie in the locations, go when nothing is left in them.

    Raises:
        CheckFailed: a file is not as a step expects it, or an interrupted change has not been recovered
            (see ``recovery``); nothing was changed.
        MissingRequirement: the file system refused; everything is as it was before, or the message says that
            the next command will see to it.
    """
    roots = tuple(sorted({step.location for step in steps}))
    for root in roots:
        if pending(root):
            raise CheckFailed(f"{root}: a change was interrupted", "vimectl patch status finishes it")
    try:
        journal = _prepare(action, steps, roots, folders)
        for root in roots[1:]:
            journals.decide(root, POINTER)
        journals.decide(roots[0], FORWARD)
    except BaseException as e:
        with suppress(OSError):
            journals.discard(roots)
        if isinstance(e, OSError):
            left = any(map(pending, roots))
            hint = "the next vimectl command on it tidies up" if left else "nothing was changed"
            raise MissingRequirement(f"cannot prepare the change: {e}", hint) from e
        raise
    try:
        file_replacement.move(journal, set(roots))
    except (OSError, CheckFailed) as e:
        _turn_back(journal, e)
    with suppress(OSError):  # it is done; what is left of the bookkeeping, the next command removes
        journals.discard(roots)


def _prepare(action: str, steps: Sequence[Step], roots: Sequence[Path], folders: Sequence[Path]) -> Journal:
    """Write everything the change needs, and return it as it will be decided."""
    for root in roots:
        _refuse_read_only([root / step.path for step in steps if step.location == root])
        stage(root).mkdir()
    moves = tuple(_stage(index, roots.index(step.location), step) for index, step in enumerate(steps))
    where = tuple(
        (index, str(path.relative_to(root)))
        # The deepest first: a folder can go when those in it have gone.
        for path in sorted(folders, reverse=True)
        for index, root in enumerate(roots)
        if path.is_relative_to(root)
    )
    journal = Journal(action, True, os.urandom(8).hex(), tuple(roots), moves, where)
    first = stage(roots[0])
    files = {first / FORWARD: journal.dump(True), first / BACK: journal.dump(False)}
    files |= {stage(root) / POINTER: journal.pointer() for root in roots[1:]}
    for path, text in files.items():
        write(path, text, path.parent.stat(), None)
    for root in roots:
        for path in sorted(stage(root).iterdir()):
            if not path.is_symlink():
                sync(path)
        # Each folder as well whose list of names leads to them.
        for path in (stage(root), folder(root), root):
            sync(path)
    return journal


def _stage(index: int, root: int, step: Step) -> Move:
    place = step.location / step.path
    if obstacle := tree.obstacle(step.location, step.path):
        raise CheckFailed(f"{place} cannot be changed: {obstacle}", "put a file in its place, and try again")
    blob, mode = file_replacement.at(place)
    if blob != id_of(step.before):
        raise CheckFailed(f"{place} has just been changed by somebody else", "nothing was changed; try again")
    wanted = step.mode if step.mode is not None else mode
    if mode is not None and stat.S_ISLNK(mode) != stat.S_ISLNK(wanted or 0):
        raise CheckFailed(f"{place} is a symbolic link", "put a file in its place, and try again")
    like = _like(place)
    base = stage(step.location) / str(index)
    if step.before is not None:
        write(base.with_suffix(".before"), step.before, like, mode)
    after = base.with_suffix(".after")
    if step.after is not None:
        write(after, step.after, like, wanted)
        _younger(after, like if step.before is not None else None)
        wanted = after.lstat().st_mode
    return Move(root, step.path, blob, id_of(step.after), mode, None if step.after is None else wanted)


def _like(place: Path) -> os.stat_result:
    """Whose owner a file at ``place`` gets: its own, or that of the nearest folder."""
    return next(path for path in (place, *place.parents) if os.path.lexists(path)).lstat()


def _younger(path: Path, old: os.stat_result | None) -> None:
    """Make the new file of a later second than the old: bytecode passes for that of any source of the same
    size and second, also where it is out of reach from here (PYTHONPYCACHEPREFIX)."""
    if old and int(path.lstat().st_mtime) <= int(old.st_mtime) and not path.is_symlink():
        later = max(time.time(), int(old.st_mtime) + 1)
        os.utime(path, (later, later))


def _refuse_read_only(places: Sequence[Path]) -> None:
    """Look before anything is begun: also what belongs to root may be read-only, by its mount."""
    for place in places:
        near = next(parent for parent in place.parents if os.path.lexists(parent))
        for path in (near, place.parent / "__pycache__"):
            if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
                raise MissingRequirement(
                    f"{path} is read-only", "nothing was changed; make it writable, or become its owner"
                )


def _turn_back(journal: Journal, error: Exception) -> None:
    """Lead a change that met an error half-way back, and raise what it came to."""
    roots = journal.roots
    back = replace(journal, forward=False)
    try:
        journals.decide(roots[0], BACK)  # written before: a full disk cannot prevent it
        file_replacement.move(back, set(roots))
    except (OSError, CheckFailed) as e:
        raise MissingRequirement(
            f"cannot replace a file: {error}; and then: {e}",
            "when the disk can be written again, the next vimectl command finishes this or takes it back",
        ) from error
    with suppress(OSError):
        journals.discard(roots)
    raise MissingRequirement(f"cannot replace a file: {error}", "everything is as it was before") from error
