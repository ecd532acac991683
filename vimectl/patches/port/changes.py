"""Split a diff into single changes, and detect those that a release has already or that it made obsolete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import groupby
from typing import NamedTuple

from vimectl.patches.git_commands import FileMerge
from vimectl.patches.patchfile.file_diff import FileDiff
from vimectl.patches.port.auto_resolve import conflicts_of

# The lines of context before and after a change to search it with: ever fewer, since the other release may
# have changed them.
_CONTEXTS = ((3, 3), (2, 2), (1, 1), (1, 0), (0, 1))
_TOKEN = re.compile(rb"\w+|[^\w\s]")
# Shorter lines, a bracket or an `else:`, occur in many places and identify nothing.
_MIN_TELLING = 12


class LineChange(NamedTuple):
    """Lines that a patch replaces by others. ``begin`` is the position of the first one, from 0."""

    begin: int
    removed: list[bytes]
    added: list[bytes]


def split(diff: FileDiff) -> Iterator[LineChange]:
    """Yield the changes of a diff in order: each run of changed lines."""
    for hunk in diff.hunks:
        position = hunk.begin
        for is_context, run in groupby(hunk.content, key=lambda line: line[0] == " "):
            lines = list(run)
            removed, added = ([text for sign, text in lines if sign == wanted] for wanted in "-+")
            if not is_context:
                yield LineChange(position, removed, added)
            position += sum(sign != "+" for sign, _ in lines)


def apply_changes(content: bytes, changes: Sequence[LineChange]) -> bytes:
    """Apply some of the changes to the content that they were made for."""
    lines = BytesIO(content).readlines()
    for begin, removed, added in reversed(changes):
        lines[begin : begin + len(removed)] = added
    return b"".join(lines)


def is_in_release(change: LineChange, base: bytes, release: bytes) -> bool:
    """Return True if ``release`` has the new lines of a change of ``base``, and nowhere the old ones.

    A change that only removes lines is recognized only with all of its context.
    """
    lines, old_lines = BytesIO(release).readlines(), BytesIO(base).readlines()
    begin, removed, added = change
    if added and _count(lines, added) <= _count(old_lines, added):
        return False
    end = begin + len(removed)
    for ahead, behind in _CONTEXTS if added else _CONTEXTS[:1]:
        before, after = old_lines[max(0, begin - ahead) : begin], old_lines[end : end + behind]
        old, new = before + removed + after, before + added + after
        replaced = not _count(lines, old) if removed or (ahead and behind) else True
        if _count(lines, new) == 1 and not _count(old_lines, new) and replaced:
            return True
    return False


def obsolete_lines(change: LineChange, merge: FileMerge, release: bytes) -> list[bytes]:
    """Return the lines to which a change only adds, for example a condition, if the release removed them.

    ``merge`` is the result of merging the change alone. A change that replaces lines by others is never
    obsolete, because the new lines may be anywhere. A change with lines that occur elsewhere in the file is
    not obsolete either.
    """
    replaced_by_other_lines = any(ours.strip() for ours, _, _ in conflicts_of(merge))
    telling = [line for line in change.removed if len(b"".join(line.split())) >= _MIN_TELLING]
    old, new = (_TOKEN.findall(b"".join(lines)) for lines in (change.removed, change.added))
    words = iter(new)
    if replaced_by_other_lines or not all(word in words for word in old):
        return []
    return [] if set(telling).intersection(BytesIO(release)) else telling


def _count(lines: list[bytes], wanted: list[bytes]) -> int:
    size = len(wanted)
    return sum(lines[at : at + size] == wanted for at, line in enumerate(lines) if wanted[:1] == [line])
