"""Replace the content of several files, in several directories, all or nothing, whenever it is killed.

1. Every new content and a copy of every old one is written to ``.vimectl/stage/`` in its target and synced.
2. ``journal.json`` is written: in each further directory a pointer to the first one, then in the first
   the whole list of steps. That last rename is the moment of decision: before it nothing has happened,
   after it the change will be finished, by this process or by the next command.
3. Each file is replaced by rename, and the directories are synced.
4. The stages are removed, then the pointers, then the journal.

An error while files are replaced turns the journal around, and the same steps lead back.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vimectl.errors import CheckFailed, MachineLacks
from vimectl.patching.blobs import blob_at, blob_id
from vimectl.patching.ledger import folder
from vimectl.patching.lock import locked


@dataclass(frozen=True)
class Step:
    """One file: ``path`` relative to ``location``, its content before and after (None: no such file)."""

    location: Path
    path: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class _Move:
    """A step in the journal: blob ids instead of contents. ``root`` is an index into the journal's roots."""

    root: int
    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class _Journal:
    action: str
    forward: bool
    roots: tuple[Path, ...]
    moves: tuple[_Move, ...]

    def dump(self) -> dict[str, Any]:
        moves = [asdict(move) for move in self.moves]
        roots = [str(root) for root in self.roots]
        return {"action": self.action, "forward": self.forward, "roots": roots, "moves": moves}


def execute(action: str, steps: Sequence[Step]) -> None:
    """Take every step or none. The caller holds the locks of all locations (``lock.locked``).

    Raises:
        CheckFailed: a file is not as a step expects it, or an interrupted change has not been recovered
            (see ``recover``); nothing was changed.
        MachineLacks: the file system refused; everything is as it was before.
    """
    roots = tuple(sorted({step.location for step in steps}))
    moves = tuple(
        _Move(roots.index(step.location), step.path, _id(step.before), _id(step.after)) for step in steps
    )
    journal = _Journal(action, True, roots, moves)
    for root in roots:
        if _pending(root):
            raise CheckFailed(f"{root}: a change was interrupted", "vimectl patch status finishes it")
    try:
        for index, step in enumerate(steps):
            _stage(index, step)
        for root in roots:
            _sync(folder(root) / "stage")
        for root in roots[1:]:
            _write_atomically(folder(root) / "journal.json", {"first": str(roots[0])})
        _write_atomically(folder(roots[0]) / "journal.json", journal.dump())
    except BaseException as e:
        _discard(roots)
        if isinstance(e, OSError):
            raise MachineLacks(f"cannot prepare the change: {e}", "nothing was changed") from e
        raise
    try:
        _move(journal)
    except OSError as e:
        back = replace(journal, forward=False)
        _write_atomically(folder(roots[0]) / "journal.json", back.dump())
        _move(back)
        _discard(roots)
        raise MachineLacks(f"cannot replace a file: {e}", "everything is as it was before") from e
    _discard(roots)


def recover(location: Path) -> str | None:
    """Finish or take back what an interrupted command left in a target directory, and say which.

    Returns None when nothing was left.
    Raises CheckFailed when a file was edited since, naming where both of its contents are.
    """
    if not _pending(location):
        return None
    journal = _read_journal(location)
    roots = journal.roots if journal else (location,)
    with locked([*roots, location]):
        if not _pending(location):
            return None  # it was not left behind: its owner has finished it meanwhile
        journal = _read_journal(location)
        if journal is None:
            _discard((location,))
            return f"{location}: an interrupted change had not begun; its preparation was removed"
        _move(journal)
        _discard(journal.roots)
    how = "finished" if journal.forward else "taken back"
    return f"{location}: an interrupted {journal.action} was {how}"


def _pending(location: Path) -> bool:
    return any((folder(location) / name).exists() for name in ("journal.json", "stage"))


def _read_journal(location: Path) -> _Journal | None:
    """The decided change that concerns ``location``, or None when none was decided."""
    path = folder(location) / "journal.json"
    if not path.is_file():
        return None
    data = json.loads(path.read_bytes())
    if "first" in data:
        # Pointers are removed before the journal they point to, so that without it nothing was decided.
        return _read_journal(Path(data["first"]))
    # The directory may have been moved or mounted elsewhere since.
    roots = (location, *map(Path, data["roots"][1:]))
    moves = tuple(_Move(**move) for move in data["moves"])
    return _Journal(data["action"], data["forward"], roots, moves)


def _stage(index: int, step: Step) -> None:
    path = step.location / step.path
    if blob_at(path) != _id(step.before):
        raise CheckFailed(f"{path} has just been changed by somebody else", "nothing was changed; try again")
    stage = folder(step.location) / "stage"
    stage.mkdir(exist_ok=True)
    for content, side in ((step.before, "before"), (step.after, "after")):
        if content is None:
            continue
        staged = stage / f"{index}.{side}"
        with staged.open("wb") as file:
            file.write(content)
            file.flush()
            if step.before is not None:
                _copy_owner_and_mode(path, file.fileno())
            os.fsync(file.fileno())


def _copy_owner_and_mode(path: Path, descriptor: int) -> None:
    like = path.stat()
    mine = os.fstat(descriptor)
    if (like.st_uid, like.st_gid) != (mine.st_uid, mine.st_gid):
        os.fchown(descriptor, like.st_uid, like.st_gid)
    os.fchmod(descriptor, like.st_mode & 0o7777)


def _move(journal: _Journal) -> None:
    """Bring every file to the decided side, doing only what is not yet done."""
    side = "after" if journal.forward else "before"
    places = [journal.roots[move.root] / move.path for move in journal.moves]
    for index, (move, path) in enumerate(zip(journal.moves, places, strict=True)):
        stage = folder(journal.roots[move.root]) / "stage"
        wanted, other = (move.after, move.before) if journal.forward else (move.before, move.after)
        found = blob_at(path)
        if found == wanted:
            continue
        if found != other:
            raise CheckFailed(
                f"{path} was edited after an interrupted {journal.action}",
                f"put {stage / f'{index}.before'} or {stage / f'{index}.after'} in its place and try again",
            )
        if wanted is None:
            path.unlink()
        else:
            path.parent.mkdir(exist_ok=True)
            os.replace(stage / f"{index}.{side}", path)
    for path in places:
        _remove_bytecode(path)
    for parent in {path.parent for path in places}:
        if parent.is_dir():
            _sync(parent)


def _remove_bytecode(path: Path) -> None:
    """Bytecode can outlive its source: with unchecked hashes, or when size and time happen to agree."""
    for cached in path.parent.glob(f"__pycache__/{path.stem}.*.pyc") if path.suffix == ".py" else ():
        cached.unlink(missing_ok=True)


def _discard(roots: Sequence[Path]) -> None:
    """Remove stages, then pointers, then the journal, so that the journal alone tells what was decided."""
    for root in roots:
        for name in ("stage", "original"):
            path = folder(root) / name
            if path.is_dir() and (name == "stage" or not any(path.iterdir())):
                shutil.rmtree(path)
    for root in reversed(roots):
        (folder(root) / "journal.json").unlink(missing_ok=True)
        _sync(folder(root))


def _write_atomically(path: Path, data: dict[str, Any]) -> None:
    fresh = path.parent / "stage" / path.name
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id(content: bytes | None) -> str | None:
    return None if content is None else blob_id(content)
