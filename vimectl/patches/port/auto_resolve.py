"""The two kinds of conflict that need nobody: imports side by side, and a condition on code that is gone."""

from __future__ import annotations

import re
from io import BytesIO

from vimectl.patches.port.changes import Change
from vimectl.patches.port.conflict_markers import Block, Lines, settle
from vimectl.patches.port.three_way import Merged

_IMPORT = re.compile(rb"(import [\w., ]+|from [\w.]+ import [\w., *]+)( *#.*)?\r?\n")
_TOKEN = re.compile(rb"\w+|[^\w\s]")
# What is shorter, a bracket or an `else:`, stands in many places and says nothing.
_TELLING = 12


def joined_imports(merged: Merged) -> Merged:
    """Settle the conflicts in which both sides only add import lines in one place: all of them are wanted.

    They are put in the order that import sorters use: ``import`` before ``from``, each by name.
    """
    if not merged.conflicts:
        return merged
    content, left = settle(merged.content, _join)
    return Merged(content, left)


def is_gone(change: Change, merged: Merged, release: bytes) -> bool:
    """Whether a hunk only adds to lines, a condition say, that the new release has no longer.

    ``merged`` is what merging the hunk alone came to. A hunk that replaces lines by others is never gone: its
    other half may be anywhere. Nor is one whose lines stand elsewhere in the file.
    """
    if merged.clean or merged.conflicts is None or not _only_adds(change):
        return False
    if settle(merged.content, _dropped)[1]:
        return False
    there = set(BytesIO(release))
    telling = removed(change)
    return bool(telling) and not any(line in there for line in telling)


def removed(change: Change) -> Lines:
    """Return the lines that a hunk replaces, without those that could stand anywhere."""
    before, after = change.context
    lines = change.old[before : len(change.old) - after]
    return [line for line in lines if len(b"".join(line.split())) >= _TELLING]


def _only_adds(change: Change) -> bool:
    """Whether every word of the lines that the hunk replaces is there still, in order, in the new ones."""
    before, after = change.context
    old = b"".join(change.old[before : len(change.old) - after])
    new = iter(_TOKEN.findall(b"".join(change.new[before : len(change.new) - after])))
    return bool(old.strip()) and all(word in new for word in _TOKEN.findall(old))


def _dropped(block: Block) -> Lines | None:
    return None if b"".join(block.release).strip() else block.release


def _join(block: Block) -> Lines | None:
    lines = block.release + block.patched
    if block.base or not all(_IMPORT.fullmatch(line) for line in lines):
        return None
    return sorted(set(lines), key=lambda line: (line.startswith(b"from "), line.lower()))
