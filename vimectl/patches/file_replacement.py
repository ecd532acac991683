"""Bring every file of a decided change to the decided side. Done again after a death, it does the rest."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from vime_runtime.spec.atomic_io import sync
from vime_runtime.spec.errors import CheckFailed

from vimectl.patches import tree
from vimectl.patches.applied_state import folder
from vimectl.patches.blobs import content_at, id_of
from vimectl.patches.durable import make_folder
from vimectl.patches.journal import Journal, stage

Side = tuple[str | None, int | None]

# Why a folder may stay: something is in it, somebody uses it, it is not there, or another thing is.
STAYS = (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOENT, errno.ENOTDIR)


def move(journal: Journal, roots: set[Path]) -> None:
    """Move the files that are not yet on the decided side, those in ``roots``, and sync what was moved.

    Raises CheckFailed when a file is on neither side, or what was to replace it is damaged.
    """
    places = []
    for index, one in enumerate(journal.moves):
        root = journal.roots[one.root]
        if root not in roots:
            continue
        place = root / one.path
        places.append(place)
        wanted, other = one.side(journal.forward), one.side(not journal.forward)
        found = at(place)
        if _same(found, wanted, other):
            continue
        staged = stage(root) / f"{index}.{'after' if journal.forward else 'before'}"
        if not _same(found, other, wanted):
            raise CheckFailed(
                f"{place} was edited after an interrupted {journal.action}",
                f"put {stage(root) / f'{index}.before'} or {stage(root) / f'{index}.after'} in its place"
                " and try again",
            )
        if obstacle := tree.obstacle(root, one.path):
            raise CheckFailed(
                f"{place} cannot be changed: {obstacle}", "put back what was there, and try again"
            )
        if wanted[0] is None:
            place.unlink()
        elif at(staged)[0] != wanted[0]:
            raise CheckFailed(
                f"{staged} is damaged", f"put the right content of {place} there, and try again"
            )
        else:
            for made in make_folder(place.parent):
                sync(made.parent)  # or a loss of power might keep the move into it and not the folder
            os.replace(staged, place)
    stale = {parent for place in places if (parent := remove_bytecode(place))}
    for number, path in journal.folders:
        remove_empty(journal.roots[number], path)
    parents = {place.parent for place in places} | {folder(root) for root in roots} | stale
    parents |= {(journal.roots[number] / path).parent for number, path in journal.folders}
    for parent in sorted(parents):
        if parent.is_dir():
            sync(parent)


def at(path: Path) -> Side:
    """Return the blob id and ``st_mode`` of what is at a path."""
    content = content_at(path)
    return id_of(content), None if content is None else path.lstat().st_mode


def remove_bytecode(path: Path) -> Path | None:
    """Bytecode can outlive its source: with unchecked hashes, or when size and time happen to agree.

    Returns the folder from which some was removed.
    """
    cache = path.parent / "__pycache__"
    if path.suffix != ".py" or cache.is_symlink() or not cache.is_dir():
        return None
    stale = [name for name in os.listdir(cache) if name.startswith(f"{path.stem}.") and name.endswith(".pyc")]
    for name in stale:
        (cache / name).unlink(missing_ok=True)
    return cache if stale else None


def remove_empty(root: Path, path: str) -> None:
    """Remove a folder that was made for files when none of them is left, and no others are there.

    Raises:
        OSError: the file system refused, for another reason than what is, or is not, at the place.
    """
    place = root / path
    for one in (place / "__pycache__", place):
        try:
            one.rmdir()
        except OSError as e:
            if e.errno not in STAYS:
                raise


def _same(found: Side, wanted: Side, other: Side) -> bool:
    """Whether a file is on a side. Permissions count only when they are all that tells the sides apart: what
    somebody does to them meanwhile is his business."""
    if found[0] != wanted[0]:
        return False
    if wanted[1] is None or found[1] is None:
        return True
    if wanted[0] == other[0]:
        return found[1] == wanted[1]
    return stat.S_IFMT(found[1]) == stat.S_IFMT(wanted[1])
