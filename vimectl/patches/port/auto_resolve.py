"""Parse conflict markers, and resolve the conflicts between imports that are added in the same place."""

from __future__ import annotations

import re
from io import BytesIO

from vimectl.patches.git_commands import FileMerge, merge_file

_MARKER_LINE = re.compile(rb"^(<{7}|\|{7}|>{7}) ", re.MULTILINE)
# Our, base and their lines. The marker without a label is a whole line: underlines are longer.
_CONFLICT = re.compile(
    rb"^<{7} [^\n]*\n(.*?)^\|{7} [^\n]*\n(.*?)^={7}\r?\n(.*?)^>{7} [^\n]*\n", re.MULTILINE | re.DOTALL
)
_IMPORT = re.compile(rb"(import [\w., ]+|from [\w.]+ import [\w., *]+)( *#.*)?\r?\n")


def first_marker(content: bytes) -> int | None:
    """Return the number of the first line that is a conflict marker, or None."""
    found = _MARKER_LINE.search(content)
    return content.count(b"\n", 0, found.start()) + 1 if found else None


def conflicts_of(merge: FileMerge) -> list[tuple[bytes, bytes, bytes]]:
    """Return our, base and their lines of each conflict."""
    return _CONFLICT.findall(merge.content or b"")


def merge_with_imports(
    base: bytes | None, ours: bytes | None, theirs: bytes | None, labels: tuple[str, str, str]
) -> FileMerge:
    """Merge as ``merge_file`` does, and resolve conflicts in which both only add import lines in one place.

    All are needed; they are put in the order of import sorters: ``import`` before ``from``, each by name.
    """
    merge = merge_file(base, ours, theirs, labels)
    if not merge.conflicts or merge.content is None:
        return merge
    joined = merge._replace(content=_CONFLICT.sub(_joined, merge.content))
    return joined._replace(conflicts=len(conflicts_of(joined)))


def _joined(conflict: re.Match[bytes]) -> bytes:
    """Return a conflict with the imports of both versions, or unchanged."""
    ours, base, theirs = conflict.groups()
    lines = BytesIO(ours + theirs).readlines()
    if base or not all(map(_IMPORT.fullmatch, lines)):
        return conflict[0]
    lines = sorted(set(lines), key=lambda line: (line.startswith(b"from "), line.lower()))
    return b"".join(lines)
