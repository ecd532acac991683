"""Parse conflict markers, and resolve two kinds of conflict without the user.

The two are imports added in the same place, and changes of a condition on code that was removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO

from vimectl.patches.git_commands import FileMerge
from vimectl.patches.port.changes import Change

_MARKER_LINE = re.compile(rb"^(<{7}|\|{7}|>{7}) ", re.MULTILINE)
# The marker without a label is a whole line: underlines of headings are longer.
_CONFLICT = re.compile(
    rb"^<{7} [^\n]*\n(.*?)^\|{7} [^\n]*\n(.*?)^={7}\r?\n(.*?)^>{7} [^\n]*\n", re.MULTILINE | re.DOTALL
)
_IMPORT = re.compile(rb"(import [\w., ]+|from [\w.]+ import [\w., *]+)( *#.*)?\r?\n")
_TOKEN = re.compile(rb"\w+|[^\w\s]")
# Shorter lines, a bracket or an `else:`, occur in many places and identify nothing.
_MIN_TELLING = 12

# Takes the text of a conflict in the release, the base and the patched file; returns None to leave it.
Resolve = Callable[[bytes, bytes, bytes], "bytes | None"]


def first_marker(content: bytes) -> int | None:
    """Return the number of the first line that is a conflict marker, or None."""
    found = _MARKER_LINE.search(content)
    return content.count(b"\n", 0, found.start()) + 1 if found else None


def resolve_conflicts(content: bytes, resolve: Resolve) -> tuple[bytes, int]:
    """Replace the conflicts (diff3 style) that ``resolve`` resolves; also return the number of the others."""
    left = 0

    def replace(conflict: re.Match[bytes]) -> bytes:
        nonlocal left
        resolved = resolve(*conflict.groups())
        if resolved is None:
            left += 1
            return conflict[0]
        return resolved

    return _CONFLICT.sub(replace, content), left


def join_imports(merge: FileMerge) -> FileMerge:
    """Resolve the conflicts in which both versions only add import lines in one place: all are needed.

    They are put in the order of import sorters: ``import`` before ``from``, each by name.
    """
    if not merge.conflicts or merge.content is None:
        return merge
    content, left = resolve_conflicts(merge.content, _joined)
    return FileMerge(content, left)


def is_obsolete(change: Change, merge: FileMerge, release: bytes) -> bool:
    """Return True if a hunk only adds to lines, for example a condition, that the new release removed.

    ``merge`` is the result of merging the hunk alone. A hunk that replaces lines by others is never
    obsolete, because the new lines may be anywhere. A hunk with lines that occur elsewhere in the file is not
    obsolete either.
    """
    if merge.content is None or not merge.conflicts or not _only_adds(change):
        return False
    if resolve_conflicts(merge.content, _if_removed)[1]:
        return False
    telling = telling_lines(change)
    return bool(telling) and not set(telling).intersection(BytesIO(release))


def telling_lines(change: Change) -> list[bytes]:
    """Return the lines that a hunk replaces, without those that could occur anywhere."""
    return [line for line in change.removed if len(b"".join(line.split())) >= _MIN_TELLING]


def _only_adds(change: Change) -> bool:
    """Return True if the new lines have every word of those that the hunk replaces, in order."""
    old = b"".join(change.removed)
    new = iter(_TOKEN.findall(b"".join(change.added)))
    return bool(old.strip()) and all(word in new for word in _TOKEN.findall(old))


def _if_removed(release: bytes, base: bytes, patched: bytes) -> bytes | None:
    return None if release.strip() else release


def _joined(release: bytes, base: bytes, patched: bytes) -> bytes | None:
    lines = BytesIO(release + patched).readlines()
    if base or not all(_IMPORT.fullmatch(line) for line in lines):
        return None
    lines = sorted(set(lines), key=lambda line: (line.startswith(b"from "), line.lower()))
    return b"".join(lines)
