"""Read hunks: find where each ends by git's rules, and let unidiff read the lines of those that are complete.

unidiff alone is not enough: it stops at the first wrong hunk without naming its line, takes a bare carriage
return for an empty line, and knows the mark of a missing newline in English only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from unidiff.patch import PatchSet

from vimectl.patches.patchfile.file_diff import Hunk, MalformedDiff

_RANGES = re.compile(rb"@@ -(\d{1,10})(?:,(\d{1,10}))? \+(\d{1,10})(?:,(\d{1,10}))? @@")
# "\ No newline at end of file" is at least this long in every translation of diff.
_SHORTEST_MARK = 12
_MARK = "\\ No newline at end of file\n"
_SIGNATURE = (b"-- \n", b"--\n", b"-- \r\n", b"--\r\n")  # begins a mail's signature
_BODY = (b" ", b"+", b"-", b"\\", b"\n")
# If one of these follows an incomplete hunk, the hunk is too short; otherwise a line was wrapped.
_NEXT = (*_BODY, b"@@", b"diff ", b"index ", b"Index: ", b"From ")
# The usual number of context lines, so the most empty ones that a tool can remove at the end of a file.
_USUAL_CONTEXT = 3


def ranges(line: bytes) -> tuple[int, int, int, int] | None:
    """Return old start and count, new start and count of an ``@@`` line; None if it is malformed."""
    found = _RANGES.match(line)
    if not found or not line.endswith(b"\n"):
        return None
    old, old_count, new, new_count = (1 if number is None else int(number) for number in found.groups())
    return old, old_count, new, new_count


def read_hunk(lines: Sequence[bytes], start: int) -> tuple[Hunk, int]:
    """Return the hunk at ``start`` and the index after it. Raises MalformedDiff when git refuses the hunk."""
    found = ranges(lines[start])
    if not found:
        raise MalformedDiff(start + 1, "corrupt-header")
    old, new = found[1], found[3]
    end = start + 1
    while old or new:
        line = lines[end] if end < len(lines) else b""
        sign = line[:1]
        left = old - (sign in (b" ", b"\n", b"-")), new - (sign in (b" ", b"\n", b"+"))
        if not line.endswith(b"\n"):
            raise _unfinished(lines, *left, start, end)
        if min(left) < 0 or left == (old, new):
            raise _wrong_line(lines, start, end)
        old, new = left
        end += 1
        if end < len(lines) and lines[end].startswith(b"\\ ") and len(lines[end]) >= _SHORTEST_MARK:
            end += 1
    content = _read_lines(lines[start:end])
    if all(sign == " " for sign, _ in content):
        raise MalformedDiff(start + 1, "empty-hunk")
    return Hunk(start + 1, *found, content), end


def _read_lines(lines: Sequence[bytes]) -> tuple[tuple[str, bytes], ...]:
    """Return sign and text of the lines of a hunk."""
    text = (_MARK if line[:1] == b"\\" else line.decode("latin-1") for line in lines)
    content: list[tuple[str, bytes]] = []
    for line in PatchSet(["--- a\n", "+++ b\n", *text])[0][0]:
        if line.line_type == "\\":
            content[-1] = content[-1][0], content[-1][1].removesuffix(b"\n")
        else:
            content.append((line.line_type, line.value.encode("latin-1")))
    return tuple(content)


def _unfinished(lines: Sequence[bytes], old: int, new: int, start: int, end: int) -> MalformedDiff:
    """Return what is wrong with a hunk in which the file ends, in the line at ``end`` or before it.

    ``old`` and ``new`` are the numbers of lines that are missing after it.
    """
    line = lines[end] if end < len(lines) else b""
    where = end + bool(line)
    if old == new == 0:
        return MalformedDiff(where, "no-final-newline")
    # A file may also be cut within a changed line, which nothing would notice.
    if 0 < old == new <= _USUAL_CONTEXT and line[:1] in (b"", b" "):
        fix = "`vimectl patch lint --fix` restores them"
        message = f"the last {old} lines of context are missing. If they were empty, {fix}; else it is cut"
        return MalformedDiff(where, "lost-context", message)
    if min(old, new) <= 0 and (line or lines[end - 1])[:1] == b" ":  # a cut takes trailing context with it
        return MalformedDiff(start + 1, "hunk-count", count_message(lines, start))
    return MalformedDiff(where, "truncated", f"the file ends in the hunk of line {start + 1}: it was cut off")


def _wrong_line(lines: Sequence[bytes], start: int, end: int) -> MalformedDiff:
    """Return what is wrong with a hunk that the line at ``end`` cannot continue."""
    line = lines[end]
    if line.startswith(_NEXT) or lines[end - 1] in _SIGNATURE:
        return MalformedDiff(start + 1, "hunk-count", count_message(lines, start))
    what = f"{line[:40].decode('latin-1').rstrip()!r} is no line of the hunk of line {start + 1}"
    return MalformedDiff(end + 1, "wrapped-line", what)


def count_message(lines: Sequence[bytes], start: int) -> str:
    """Return how the counts of the hunk at ``start`` differ from its lines."""
    _, old, _, new = ranges(lines[start]) or (0, 0, 0, 0)
    counted = count(lines, start)
    if counted == (old, new):
        return f"the order of the lines does not agree with {old} old and {new} new lines"
    return f"the @@ line states {old} old and {new} new lines, there are {counted[0]} and {counted[1]}"


def count(lines: Sequence[bytes], start: int) -> tuple[int, int]:
    """Return the number of old and of new lines that look like those of the hunk at ``start``."""
    signs = [line[:1] for line in lines[start + 1 : body_end(lines, start + 1)]]
    number = len(signs) - signs.count(b"\\")
    return number - signs.count(b"+"), number - signs.count(b"-")


def body_end(lines: Sequence[bytes], start: int) -> int:
    """Return the index after the lines that look like those of one hunk; its ``@@`` line is ignored."""
    end = start
    while end < len(lines) and lines[end][:1] in _BODY:
        following = lines[end + 1] if end + 1 < len(lines) else b""
        if lines[end] in _SIGNATURE and (following[:1] not in _BODY[:3] or following in _SIGNATURE):
            break
        if lines[end].startswith(b"--- ") and following.startswith(b"+++ "):
            break
        end += 1
    if end == len(lines) or not lines[end].startswith(b"@@"):
        while end > start and lines[end - 1] == b"\n":  # separates the diff from what follows
            end -= 1
    return end
