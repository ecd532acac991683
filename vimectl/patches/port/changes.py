"""Split a diff into single changes, and detect whether a release already has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby, takewhile

from vimectl.patches.patchfile.file_diff import FileDiff

# The lines of context before and after a change to search it with: ever fewer, since the other release may
# have changed them.
_CONTEXTS = ((3, 3), (2, 2), (1, 1), (1, 0), (0, 1))


@dataclass(frozen=True)
class LineChange:
    """One changed place: its lines in both versions, with up to three of context ``before`` and ``after``.

    ``begin`` is the position in the old file, from 0, of the first line of context.
    """

    begin: int
    before: list[bytes]
    removed: list[bytes]
    added: list[bytes]
    after: list[bytes]

    @property
    def line(self) -> int:
        """Return the first line of the file that changes, counted from 1."""
        return self.begin + len(self.before) + 1

    @property
    def old(self) -> list[bytes]:
        return self.before + self.removed + self.after

    @property
    def new(self) -> list[bytes]:
        return self.before + self.added + self.after

    def fits(self, content: bytes) -> bool:
        """Return True if ``content`` has the old lines exactly where the change states."""
        return BytesIO(content).readlines()[self.begin : self.begin + len(self.old)] == self.old


def split(diff: FileDiff) -> list[LineChange]:
    """Return the changes of a diff in order: each run of changed lines with its context."""
    found = []
    for hunk in diff.hunks:
        # The start of an empty range is the line before it.
        position = hunk.old_start - 1 if hunk.old_count else hunk.old_start
        runs = [list(run) for _, run in groupby(hunk.lines(), key=lambda line: line[0] == " ")]
        for run, previous, following in zip(runs, [[], *runs], [*runs[1:], []], strict=False):
            if run[0][0] != " ":
                before, after = ([text for _, text in part] for part in (previous[-3:], following[:3]))
                removed, added = ([text for sign, text in run if sign == wanted] for wanted in "-+")
                found.append(LineChange(position - len(before), before, removed, added, after))
            position += sum(sign != "+" for sign, _ in run)
    return found


def apply_changes(content: bytes, changes: Sequence[LineChange]) -> bytes:
    """Apply some of the changes to the content that they were made for."""
    lines = BytesIO(content).readlines()
    for change in reversed(changes):
        lines[change.begin : change.begin + len(change.old)] = change.new
    return b"".join(lines)


def is_in_release(change: LineChange, base: bytes, release: bytes) -> bool:
    """Return True if ``release`` has the new lines of a change of ``base``, and nowhere the old ones.

    A change that only removes lines is recognized only with all of its context.
    """
    lines, old_lines = BytesIO(release).readlines(), BytesIO(base).readlines()
    if change.added and _count(lines, change.added) <= _count(old_lines, change.added):
        return False
    for ahead, behind in _CONTEXTS if change.added else _CONTEXTS[:1]:
        before, after = change.before[-ahead:] if ahead else [], change.after[:behind]
        old, new = before + change.removed + after, before + change.added + after
        replaced = _count(lines, old) == 0 if change.removed or (ahead and behind) else True
        if _count(lines, new) == 1 and _count(old_lines, new) == 0 and replaced:
            return True
    return False


def same_lines(one: bytes, other: bytes) -> int:
    """Return how many lines at the beginning of two files are the same."""
    pairs = zip(BytesIO(one), BytesIO(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _count(lines: list[bytes], wanted: list[bytes]) -> int:
    size = len(wanted)
    return sum(lines[at : at + size] == wanted for at, line in enumerate(lines) if wanted[:1] == [line])
