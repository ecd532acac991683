"""One hunk: its ``@@`` line and as many lines as that says."""

from __future__ import annotations

import re

from vimectl.patches.patchfile.cursor import Cursor
from vimectl.patches.patchfile.header import Malformed
from vimectl.patches.patchfile.model import Hunk

_RANGES = re.compile(rb"@@ -(\d{1,10})(?:,(\d{1,10}))? \+(\d{1,10})(?:,(\d{1,10}))? @@")
# Shorter than this in any language, and it is not "\ No newline at end of file".
_SHORTEST_MARK = 12
_SIGNS = (b" ", b"", b"-", b"+")
# What may stand where a hunk should go on: then it is too short, and no line of it is broken in two.
_NEXT = (b"@@", b"diff ", b"index ", b"Index: ", b"From ", b"\\")


def is_hunk(line: bytes) -> bool:
    """Whether a line is a well-formed ``@@`` line."""
    return bool(_RANGES.match(line))


def read(cursor: Cursor) -> Hunk:
    """Read the hunk at the cursor, and leave the cursor behind it.

    Raises:
        Malformed: git refuses it; the cursor is at the line where the hunk goes wrong.
    """
    found = _RANGES.match(cursor.line)
    if not found or not cursor.whole:
        raise Malformed("corrupt-header", "not a well-formed @@ line")
    old_start, new_start = int(found[1]), int(found[3])
    old_count, new_count = (1 if found[side] is None else int(found[side]) for side in (2, 4))
    line = cursor.number
    cursor.advance()
    start = cursor.start
    old, new = old_count, new_count
    changed = False
    while old or new:
        sign = cursor.line[:1]
        if not cursor.whole:
            last = cursor.number if cursor.more else cursor.number - 1
            raise Malformed("truncated", f"the file ends in the hunk of line {line}", last)
        if sign in (b" ", b""):
            old, new = old - 1, new - 1
        elif sign == b"-":
            old, changed = old - 1, True
        elif sign == b"+":
            new, changed = new - 1, True
        else:
            old = -1
        if old < 0 or new < 0:
            if sign in _SIGNS or cursor.line.startswith(_NEXT):
                raise Malformed("hunk-count", _counted(cursor, start, old_count, new_count), line)
            what = f"{cursor.line[:40].decode('latin-1')!r} is no line of the hunk of line {line}"
            raise Malformed("wrapped-line", what)
        cursor.advance()
        if cursor.line.startswith(b"\\ ") and len(cursor.line) + cursor.whole >= _SHORTEST_MARK:
            cursor.advance()
    if not changed:
        raise Malformed("empty-hunk", f"the hunk of line {line} changes nothing")
    return Hunk(line, old_start, old_count, new_start, new_count, cursor.since(start))


def actual(body: bytes) -> tuple[int, int]:
    """Return how many old and new lines a hunk's text really has."""
    lines = body.split(b"\n")[:-1]
    signs = [line[:1] or b" " for line in lines]
    return len(signs) - signs.count(b"+") - signs.count(b"\\"), len(signs) - signs.count(b"-") - signs.count(
        b"\\"
    )


def _counted(cursor: Cursor, start: int, old: int, new: int) -> str:
    has_old, has_new = actual(cursor.since(start))
    has = f"there are {has_old} and {has_new} up to line {cursor.number}"
    return f"the @@ says {old} old and {new} new lines, {has}"
