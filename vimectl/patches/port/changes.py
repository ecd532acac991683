"""Split a diff into single changes, and detect whether a release already has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby, takewhile

from vimectl.patches.patchfile.file_diff import FileDiff

# The lines of context before and after a change to search it with: ever fewer, since the other release may
# have changed them.
_CONTEXTS = ((3, 3), (2, 2), (1, 1), (1, 0), (0, 1))


@dataclass(frozen=True)
class Change:
    """One changed place: its first line in the file (from 0), and its old and new lines with context."""

    begin: int
    old: tuple[bytes, ...]
    new: tuple[bytes, ...]

    @property
    def line(self) -> int:
        """Return the first line of the file that changes, counted from 1."""
        return self.begin + self.context[0] + 1

    @property
    def context(self) -> tuple[int, int]:
        """Return the number of context lines before and after the changed ones."""
        before = _common_prefix(self.old, self.new)
        shortest = min(len(self.old), len(self.new)) - before
        return before, min(shortest, _common_prefix(self.old[::-1], self.new[::-1]))

    @property
    def replaced(self) -> list[bytes]:
        """Return the old lines without context."""
        before, after = self.context
        return list(self.old[before : len(self.old) - after])

    @property
    def replacement(self) -> list[bytes]:
        """Return the new lines without context."""
        before, after = self.context
        return list(self.new[before : len(self.new) - after])

    def fits(self, content: bytes) -> bool:
        """Return True if ``content`` has the old lines exactly where the change states."""
        lines = BytesIO(content).readlines()
        return tuple(lines[self.begin : self.begin + len(self.old)]) == self.old


def split(diff: FileDiff) -> list[Change]:
    """Return the changes of a diff in order: each run of changed lines with its context."""
    found = []
    for hunk in diff.hunks:
        lines = list(hunk.lines())
        # The start of an empty range is the line before it.
        start = hunk.old_start - 1 if hunk.old_count else hunk.old_start
        for first, last in _changed_runs([sign for sign, _ in lines]):
            head = lines[:first]
            before = _leading_context(head[::-1])[::-1]
            after = _leading_context(lines[last:])
            run = lines[first:last]
            old, new = ([text for sign, text in run if sign == wanted] for wanted in "-+")
            begin = start + sum(sign != "+" for sign, _ in head) - len(before)
            found.append(Change(begin, (*before, *old, *after), (*before, *new, *after)))
    return found


def _changed_runs(signs: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the first position of each run of changed lines, and the position after it."""
    position = 0
    for changed, run in groupby(signs, key=lambda sign: sign != " "):
        length = len(list(run))
        if changed:
            yield position, position + length
        position += length


def _leading_context(lines: list[tuple[str, bytes]]) -> list[bytes]:
    """Return the unchanged lines at the start of a list, at most three."""
    return [text for _, text in takewhile(lambda line: line[0] == " ", lines[:3])]


def apply_changes(content: bytes, changes: list[Change]) -> bytes:
    """Apply some of the changes to the content that they were made for."""
    lines = BytesIO(content).readlines()
    for change in reversed(changes):
        lines[change.begin : change.begin + len(change.old)] = change.new
    return b"".join(lines)


def is_in_release(change: Change, base: bytes, release: bytes) -> bool:
    """Return True if ``release`` has the new lines of a change of ``base``, and nowhere the old ones.

    A change that only removes lines is recognized only with all of its context.
    """
    before, after = change.context
    adds = len(change.new) > before + after
    removes = len(change.old) > before + after
    lines, old_lines = BytesIO(release).readlines(), BytesIO(base).readlines()
    if adds and _count(lines, change.replacement) <= _count(old_lines, change.replacement):
        return False
    for ahead, behind in _CONTEXTS if adds else _CONTEXTS[:1]:
        cut = slice(max(0, before - ahead), None if after <= behind else behind - after)
        old, new = list(change.old[cut]), list(change.new[cut])
        replaced = _count(lines, old) == 0 if removes or (ahead and behind) else True
        if _count(lines, new) == 1 and _count(old_lines, new) == 0 and replaced:
            return True
    return False


def line_offset(before: bytes, after: bytes, new_before: bytes, new_after: bytes) -> int:
    """Return how many lines further down a change (``before`` to ``after``) is in the new file."""
    return _first_difference(new_before, new_after) - _first_difference(before, after)


def _first_difference(one: bytes, other: bytes) -> int:
    return _common_prefix(tuple(BytesIO(one)), tuple(BytesIO(other)))


def _common_prefix(one: tuple[bytes, ...], other: tuple[bytes, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _count(lines: list[bytes], wanted: list[bytes]) -> int:
    if not wanted:
        return 0
    starts = (number for number, line in enumerate(lines) if line == wanted[0])
    return sum(lines[start : start + len(wanted)] == wanted for start in starts)
