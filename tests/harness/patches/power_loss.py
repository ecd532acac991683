"""Model a disk that loses power: data that was not synced may be there afterwards, or not, or in part.

A file's content survives when the file was synced. A name that was made, moved or removed survives when its
directory was synced (for a move, the one it went to); otherwise each such change survives or not by itself.
A move is never half done: that much every journaling file system promises.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.patches.disk_operations import absolute, watched


@dataclass
class File:
    """An inode: its content, and the content that is on the disk for certain (None: nothing)."""

    content: bytes
    synced: bytes | None
    mode: int = 0o644
    link: bool = False


@dataclass
class Change:
    """A change of names: ``source`` is removed, and ``target`` names this file or folder."""

    source: str | None
    target: str | None
    what: File | None = None  # None with a target: a folder
    synced: bool = False


@dataclass
class Recorder:
    """Record the operations of a process below ``root``, and the disk after each."""

    root: Path
    start: dict[str, File | None] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    now: dict[str, File | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in sorted(self.root.rglob("*")):
            self.start[str(path)] = None if path.is_dir() and not path.is_symlink() else read(path)
        self.now = dict(self.start)

    def after(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Record a finished operation."""
        act = getattr(self, f"_{name}", None)
        if act:
            act(*arguments[:-1], **keywords)

    def _open(self, path: Any, flags: int, mode: int = 0o777, dir_fd: int | None = None) -> None:
        place = absolute(path, dir_fd)
        if place not in self.now:
            self._change(Change(None, place, File(b"", None)))

    def _write(self, descriptor: int, data: bytes) -> None:
        file = self.now.get(absolute(descriptor))
        assert file is not None
        file.content += bytes(data)

    def _fchmod(self, descriptor: int, mode: int) -> None:
        file = self.now.get(absolute(descriptor))
        assert file is not None
        file.mode = mode

    def _fsync(self, descriptor: int) -> None:
        place = absolute(descriptor)
        file = self.now.get(place)
        if file is not None:
            file.synced = file.content
            return
        for change in self.changes:
            if os.path.dirname(change.target or change.source or "") == place:
                change.synced = True

    def _mkdir(self, path: Any, mode: int = 0o777, dir_fd: int | None = None) -> None:
        self._change(Change(None, absolute(path, dir_fd)))

    def _rmdir(self, path: Any, dir_fd: int | None = None) -> None:
        self._change(Change(absolute(path, dir_fd), None))

    def _unlink(self, path: Any, dir_fd: int | None = None) -> None:
        self._change(Change(absolute(path, dir_fd), None))

    _remove = _unlink

    def _rename(
        self, source: Any, target: Any, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        old = absolute(source, src_dir_fd)
        self._change(Change(old, absolute(target, dst_dir_fd), self.now[old]))

    def _symlink(self, target: Any, path: Any, dir_fd: int | None = None) -> None:
        content = os.fsencode(target)
        self._change(Change(None, absolute(path, dir_fd), File(content, content, link=True)))

    def _change(self, change: Change) -> None:
        self.changes.append(change)
        apply(self.now, change)

    def disks(self, chance: random.Random, more: int) -> Iterator[dict[str, File | None]]:
        """Yield what the disk may hold if the power goes now: nothing that was not synced, all of it with
        empty files, all but one thing, and ``more`` random mixtures."""
        loose = [change for change in self.changes if not change.synced]
        yield self._disk(set(), whole=False)
        yield self._disk({id(change) for change in loose}, whole=False)
        yield self._disk({id(change) for change in loose}, whole=True)
        for _ in range(more):
            kept = {id(change) for change in loose if chance.random() < 0.5}
            yield self._disk(kept, whole=chance.random() < 0.5)

    def _disk(self, kept: set[int], whole: bool) -> dict[str, File | None]:
        found = dict(self.start)
        for change in self.changes:
            if change.synced or id(change) in kept:
                apply(found, change)
        return {
            path: file if file is None or whole else File(file.synced or b"", None, file.mode, file.link)
            for path, file in found.items()
            # The content of a lost folder is lost, too.
            if all(found.get(parent, 0) is None for parent in parents(path, self.root))
        }


@cache  # the same few paths are asked for hundreds of thousands of times
def parents(path: str, root: Path) -> list[str]:
    """Return the parent folders of a path, below ``root``."""
    found = [str(parent) for parent in Path(path).parents]
    return found[: found.index(str(root))]


def apply(names: dict[str, File | None], change: Change) -> None:
    if change.source is not None:
        names.pop(change.source, None)
    if change.target is not None:
        names[change.target] = change.what


def read(path: Path) -> File:
    content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    return File(content, content, path.lstat().st_mode, path.is_symlink())


def write(found: dict[str, File | None], root: Path) -> None:
    """Write a disk of the model, recorded below ``root``, as real files."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path in sorted(found):
        place, file = Path(path), found[path]
        if file is None:
            place.mkdir(exist_ok=True)
        elif file.link:
            place.symlink_to(os.fsdecode(file.content))
        else:
            place.write_bytes(file.content)
            place.chmod(file.mode & 0o7777)


def key(found: dict[str, File | None]) -> frozenset[tuple[str, bytes | None]]:
    """Return a key by which two disks are equal or different."""
    return frozenset((path, None if file is None else file.content) for path, file in found.items())


def possible(
    recorder: Recorder, work: Callable[[], Any], chance: random.Random, more: int, every: int = 1
) -> Iterator[dict[str, File | None]]:
    """Do ``work`` and yield each different disk that a power loss may leave after every n-th operation."""
    count = itertools.count()
    seen = set()
    kept: list[dict[str, File | None]] = []

    def after(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        recorder.after(name, arguments, keywords)
        if next(count) % every:
            return
        for found in recorder.disks(chance, more):
            which = key(found)
            if which not in seen:
                seen.add(which)
                kept.append(found)

    with watched(lambda *_: None, after):
        work()
    yield from kept
