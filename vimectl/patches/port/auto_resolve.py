"""Parse conflict markers, and resolve two kinds of conflict without the user.

The two are imports added in the same place, and changes of a condition on code that was removed.
"""

from __future__ import annotations

import re
from io import BytesIO

from vimectl.patches.git_commands import FileMerge
from vimectl.patches.port.changes import LineChange

_MARKER_LINE = re.compile(rb"^(<{7}|\|{7}|>{7}) ", re.MULTILINE)
# Release, base and patched lines. The marker without a label is a whole line: underlines are longer.
_CONFLICT = re.compile(
    rb"^<{7} [^\n]*\n(.*?)^\|{7} [^\n]*\n(.*?)^={7}\r?\n(.*?)^>{7} [^\n]*\n", re.MULTILINE | re.DOTALL
)
_IMPORT = re.compile(rb"(import [\w., ]+|from [\w.]+ import [\w., *]+)( *#.*)?\r?\n")
_TOKEN = re.compile(rb"\w+|[^\w\s]")
# Shorter lines, a bracket or an `else:`, occur in many places and identify nothing.
_MIN_TELLING = 12


def first_marker(content: bytes) -> int | None:
    """Return the number of the first line that is a conflict marker, or None."""
    found = _MARKER_LINE.search(content)
    return content.count(b"\n", 0, found.start()) + 1 if found else None


def join_imports(merge: FileMerge) -> FileMerge:
    """Resolve the conflicts in which both versions only add import lines in one place: all are needed.

    They are put in the order of import sorters: ``import`` before ``from``, each by name.
    """
    if not merge.conflicts or merge.content is None:
        return merge
    content = _CONFLICT.sub(_joined, merge.content)
    return merge._replace(content=content, conflicts=len(_CONFLICT.findall(content)))


def is_obsolete(change: LineChange, merge: FileMerge, release: bytes) -> bool:
    """Return True if a change only adds to lines, for example a condition, that the new release removed.

    ``merge`` is the result of merging the change alone. A change that replaces lines by others is never
    obsolete, because the new lines may be anywhere. A change with lines that occur elsewhere in the file is
    not obsolete either.
    """
    if not merge.conflicts or not _only_adds(change):
        return False
    if any(found[0].strip() for found in _CONFLICT.findall(merge.content or b"")):
        return False
    telling = telling_lines(change)
    return bool(telling) and not set(telling).intersection(BytesIO(release))


def telling_lines(change: LineChange) -> list[bytes]:
    """Return the lines that a change replaces, without those that could occur anywhere."""
    return [line for line in change.removed if len(b"".join(line.split())) >= _MIN_TELLING]


def _only_adds(change: LineChange) -> bool:
    """Return True if the new lines have every word of those that the change replaces, in order."""
    old = b"".join(change.removed)
    new = iter(_TOKEN.findall(b"".join(change.added)))
    return bool(old.strip()) and all(word in new for word in _TOKEN.findall(old))


def _joined(conflict: re.Match[bytes]) -> bytes:
    """Return a conflict with the imports of both versions, or unchanged."""
    release, base, patched = conflict.groups()
    lines = BytesIO(release + patched).readlines()
    if base or not all(map(_IMPORT.fullmatch, lines)):
        return conflict[0]
    lines = sorted(set(lines), key=lambda line: (line.startswith(b"from "), line.lower()))
    return b"".join(lines)
