"""What a patch changes in a file, each place by itself: where it lies, and whether a release has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby, takewhile

from vimectl.patches.patchfile import FileDiff

# How many lines of context before and after a change it is looked for with: ever fewer, since the other
# release may have changed them.
_CONTEXTS = ((3, 3), (2, 2), (1, 1), (1, 0), (0, 1))


@dataclass(frozen=True)
class Change:
    """One place: its first line in the file (from 0), its lines before and after, with context."""

    begin: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]

    @property
    def line(self) -> int:
        """The line of the file, counted from 1, at which something first changes."""
        return self.begin + self.context[0] + 1

    @property
    def context(self) -> tuple[int, int]:
        """How many lines of context lie before and after what changes."""
        before = _common(self.old, self.new)
        shortest = min(len(self.old), len(self.new)) - before
        return before, min(shortest, _common(self.old[::-1], self.new[::-1]))


def split(diff: FileDiff) -> list[Change]:
    """Return what a diff changes, in order: each run of changed lines by itself, with its context."""
    found = []
    for hunk in diff.hunks:
        lines = list(hunk.lines())
        # A range of no lines names the line after which it lies; any other, its first line.
        start = hunk.old_start - 1 if hunk.old_count else hunk.old_start
        for first, last in _runs([sign for sign, _ in lines]):
            head = lines[:first]
            ahead = _context(head[::-1])[::-1]
            behind = _context(lines[last:])
            run = lines[first:last]
            old, new = ([text for sign, text in run if sign == side] for side in "-+")
            begin = start + sum(sign != "+" for sign, _ in head) - len(ahead)
            found.append(Change(begin, (*ahead, *old, *behind), (*ahead, *new, *behind)))
    return found


def _runs(signs: list[str]) -> Iterator[tuple[int, int]]:
    """First place of each run of changed lines, and the place behind it."""
    place = 0
    for changed, run in groupby(signs, key=lambda sign: sign != " "):
        length = len(list(run))
        if changed:
            yield place, place + length
        place += length


def _context(lines: list[tuple[str, bytes]]) -> list[bytes]:
    """The unchanged lines that a list begins with, three at most."""
    return [text for _, text in takewhile(lambda line: line[0] == " ", lines[:3])]


def apply(content: bytes, changes: list[Change]) -> bytes:
    """Apply some of the hunks to the content that they were made for."""
    lines = BytesIO(content).readlines()
    for change in reversed(changes):
        lines[change.begin : change.begin + len(change.old)] = change.new
    return b"".join(lines)


def stands_in(change: Change, base: bytes, release: bytes) -> bool:
    """Whether ``release`` has what the hunk makes of ``base``: in one place, and nowhere what it replaces.

    What only removes lines leaves too little behind to be recognised by less than all of its context.
    """
    before, after = change.context
    adds = len(change.new) > before + after
    removes = len(change.old) > before + after
    lines, old_lines = BytesIO(release).readlines(), BytesIO(base).readlines()
    added = list(change.new[before : len(change.new) - after])
    if adds and _count(lines, added) <= _count(old_lines, added):
        return False
    for ahead, behind in _CONTEXTS if adds else _CONTEXTS[:1]:
        cut = slice(max(0, before - ahead), None if after <= behind else behind - after)
        old, new = list(change.old[cut]), list(change.new[cut])
        replaced = _count(lines, old) == 0 if removes or (ahead and behind) else True
        if _count(lines, new) == 1 and _count(old_lines, new) == 0 and replaced:
            return True
    return False


def moved(before: bytes, after: bytes, new_before: bytes, new_after: bytes) -> int:
    """By how many lines a change (``before`` to ``after``) lies lower in another file that it was made in."""
    return _first_difference(new_before, new_after) - _first_difference(before, after)


def _first_difference(one: bytes, other: bytes) -> int:
    return _common(tuple(BytesIO(one)), tuple(BytesIO(other)))


def _common(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    count = 0
    for mine, its in zip(one, other, strict=False):
        if mine != its:
            break
        count += 1
    return count


def _count(lines: list[bytes], wanted: list[bytes]) -> int:
    if not wanted:
        return 0
    starts = (place for place, line in enumerate(lines) if line == wanted[0])
    return sum(lines[place : place + len(wanted)] == wanted for place in starts)


def fits(change: Change, content: bytes) -> bool:
    """Whether the hunk lies exactly where it says in ``content``."""
    lines = BytesIO(content).readlines()
    return tuple(lines[change.begin : change.begin + len(change.old)]) == change.old
