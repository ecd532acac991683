"""Parse conflict markers, and resolve two kinds of conflict without the user.

The two are imports added in the same place, and changes of a condition on code that was removed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

from vimectl.patches.git_commands import FileMerge
from vimectl.patches.port.changes import Change

Lines = list[bytes]
_MARKERS = {b"<<<<<<< ": "release", b"||||||| ": "base", b">>>>>>> ": "end"}
_MARKER_LINE = re.compile(rb"^(<{7}|\|{7}|>{7}) ", re.MULTILINE)
_IMPORT = re.compile(rb"(import [\w., ]+|from [\w.]+ import [\w., *]+)( *#.*)?\r?\n")
_TOKEN = re.compile(rb"\w+|[^\w\s]")
# Shorter lines, a bracket or an `else:`, occur in many places and identify nothing.
_MIN_TELLING = 12


@dataclass
class ConflictBlock:
    """One conflict: the lines of each version, and ``text``, all of it with its markers (diff3 style)."""

    release: Lines = field(default_factory=list)
    base: Lines = field(default_factory=list)
    patched: Lines = field(default_factory=list)
    text: Lines = field(default_factory=list)


def first_marker(content: bytes) -> int | None:
    """Return the number of the first line that is a conflict marker, or None."""
    found = _MARKER_LINE.search(content)
    return content.count(b"\n", 0, found.start()) + 1 if found else None


def resolve_conflicts(content: bytes, resolve: Callable[[ConflictBlock], Lines | None]) -> tuple[bytes, int]:
    """Replace the conflicts for which ``resolve`` returns lines; also return the number of the others."""
    result: Lines = []
    block: ConflictBlock | None = None
    lines: Lines = []
    left = 0
    for line in BytesIO(content):
        marker = _marker(line, block is not None)
        if marker == "release":
            block = ConflictBlock()
        if block is None:
            result.append(line)
            continue
        block.text.append(line)
        if marker == "end":
            resolved = resolve(block)
            left += resolved is None
            result += block.text if resolved is None else resolved
            block = None
        elif marker:
            lines = getattr(block, marker)
        else:
            lines.append(line)
    return b"".join(result + (block.text if block else [])), left


def _marker(line: bytes, inside: bool) -> str | None:
    # The only marker without a label; underlines of headings are longer.
    if inside and line.rstrip(b"\r\n") == b"=======":
        return "patched"
    for prefix, name in _MARKERS.items():
        if line.startswith(prefix) and (inside or name == "release"):
            return name
    return None


def join_imports(merge: FileMerge) -> FileMerge:
    """Resolve the conflicts in which both versions only add import lines in one place: all are needed.

    They are put in the order of import sorters: ``import`` before ``from``, each by name.
    """
    if not merge.conflicts:
        return merge
    content, left = resolve_conflicts(merge.content, _joined)
    return FileMerge(content, left)


def is_obsolete(change: Change, merge: FileMerge, release: bytes) -> bool:
    """Return True if a hunk only adds to lines, for example a condition, that the new release removed.

    ``merge`` is the result of merging the hunk alone. A hunk that replaces lines by others is never
    obsolete, because the new lines may be anywhere. A hunk with lines that occur elsewhere in the file is not
    obsolete either.
    """
    if merge.clean or merge.conflicts is None or not _only_adds(change):
        return False
    if resolve_conflicts(merge.content, _if_removed)[1]:
        return False
    lines = set(BytesIO(release))
    telling = telling_lines(change)
    return bool(telling) and not any(line in lines for line in telling)


def telling_lines(change: Change) -> Lines:
    """Return the lines that a hunk replaces, without those that could occur anywhere."""
    return [line for line in change.replaced if len(b"".join(line.split())) >= _MIN_TELLING]


def _only_adds(change: Change) -> bool:
    """Return True if the new lines have every word of those that the hunk replaces, in order."""
    old = b"".join(change.replaced)
    new = iter(_TOKEN.findall(b"".join(change.replacement)))
    return bool(old.strip()) and all(word in new for word in _TOKEN.findall(old))


def _if_removed(block: ConflictBlock) -> Lines | None:
    return None if b"".join(block.release).strip() else block.release


def _joined(block: ConflictBlock) -> Lines | None:
    lines = block.release + block.patched
    if block.base or not all(_IMPORT.fullmatch(line) for line in lines):
        return None
    return sorted(set(lines), key=lambda line: (line.startswith(b"from "), line.lower()))
