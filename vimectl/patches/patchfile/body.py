"""Read what follows a diff's header: hunks, or the data of a `GIT binary patch`.

Binary data is one or two halves of base 85 lines, each a zlib stream of new content or of a delta to it.
"""

from __future__ import annotations

import base64
import re
import string
import zlib

from vimectl.patches.patchfile.cursor import LineCursor, MalformedDiff
from vimectl.patches.patchfile.file_diff import BinaryData, Hunk

_RANGES = re.compile(rb"@@ -(\d{1,10})(?:,(\d{1,10}))? \+(\d{1,10})(?:,(\d{1,10}))? @@")
# "\ No newline at end of file" is at least this long in every translation of diff.
_SHORTEST_MARK = 12
_SIGNS = (b" ", b"", b"-", b"+")
# If one of these follows an incomplete hunk, the hunk is too short; otherwise a line was wrapped.
_NEXT = (b"@@", b"diff ", b"index ", b"Index: ", b"From ", b"\\")

# Upper bound for unpacked data: a patch of source files never needs more, and a zip bomb does.
LARGEST_BINARY = 64 * 1024 * 1024
_METHOD = re.compile(rb"(literal|delta) (\d{1,10})$")
# The first letter of a line of data is its length in bytes: A is 1, a is 27.
_LENGTHS = string.ascii_letters.swapcase().encode()


class CorruptBinary(ValueError):
    """Binary data that git does not write; the message says what is wrong with it."""


def is_hunk(line: bytes) -> bool:
    """Return True for a well-formed ``@@`` line."""
    return bool(_RANGES.match(line))


def read_hunk(cursor: LineCursor) -> Hunk:
    """Read the hunk at the cursor and move the cursor past it.

    Raises:
        MalformedDiff: git refuses it; the cursor is at the first wrong line.
    """
    found = _RANGES.match(cursor.line)
    if not found or not cursor.whole:
        raise MalformedDiff("corrupt-header", "not a well-formed @@ line")
    old_start, new_start = int(found[1]), int(found[3])
    old_count, new_count = (1 if found[group] is None else int(found[group]) for group in (2, 4))
    line = cursor.number
    cursor.advance()
    start = cursor.start
    old, new = old_count, new_count
    changed = False
    while old or new:
        sign = cursor.line[:1]
        if not cursor.whole:
            last = cursor.number if cursor.more else cursor.number - 1
            raise MalformedDiff("truncated", f"the file ends in the hunk of line {line}", last)
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
                has_old, has_new = count_lines(cursor.since(start))
                has = f"there are {has_old} and {has_new} up to line {cursor.number}"
                message = f"the @@ line states {old_count} old and {new_count} new lines, {has}"
                raise MalformedDiff("hunk-count", message, line)
            what = f"{cursor.line[:40].decode('latin-1')!r} is no line of the hunk of line {line}"
            raise MalformedDiff("wrapped-line", what)
        cursor.advance()
        if cursor.line.startswith(b"\\ ") and len(cursor.line) + cursor.whole >= _SHORTEST_MARK:
            cursor.advance()
    if not changed:
        raise MalformedDiff("empty-hunk", f"the hunk of line {line} changes nothing")
    return Hunk(line, old_start, old_count, new_start, new_count, cursor.since(start))


def count_lines(body: bytes) -> tuple[int, int]:
    """Return the number of old and of new lines in the text of a hunk."""
    signs = [line[:1] or b" " for line in body.split(b"\n")[:-1]]
    lines = len(signs) - signs.count(b"\\")
    return lines - signs.count(b"+"), lines - signs.count(b"-")


def read_binary(cursor: LineCursor) -> tuple[BinaryData, ...]:
    """Read the one or two halves below ``GIT binary patch``.

    Raises CorruptBinary; the cursor is at the line.
    """
    halves: list[BinaryData] = []
    while len(halves) < 2 and (found := _METHOD.match(cursor.line)):
        cursor.advance()
        data = _read_half(cursor, int(found[2]))
        halves.append(BinaryData("literal" if found[1] == b"literal" else "delta", data))
    if not halves:
        raise CorruptBinary("neither 'literal SIZE' nor 'delta SIZE' follows")
    return tuple(halves)


def apply_binary(content: bytes, half: BinaryData) -> bytes:
    """Return the content that a half produces from ``content``.

    Raises CorruptBinary when a delta is for other content.
    """
    if half.method == "literal":
        return half.data
    # Imported here because deltas are rare. GitPython, which brings it, has no type stubs for it.
    from gitdb.fun import apply_delta_data, msb_size  # type: ignore[import-untyped]

    result = bytearray()

    def write(data: bytes) -> None:
        result.extend(data)
        if len(result) > promised:
            raise CorruptBinary("the delta produces more than its stated size")

    try:
        # A size of more than ten bytes is none; msb_size would compute it.
        at, expected = msb_size(half.data[:10])
        size, promised = msb_size(half.data[at : at + 10])
        if expected != len(content) or promised > LARGEST_BINARY:
            raise CorruptBinary("the delta is for other content")
        commands = half.data[at + size :]
        apply_delta_data(content, len(content), commands, len(commands), write)
    except CorruptBinary:
        raise
    except (AssertionError, IndexError, ValueError) as e:
        raise CorruptBinary("the delta is damaged") from e
    if len(result) != promised:
        raise CorruptBinary("the delta produces less than its stated size")
    return bytes(result)


def _read_half(cursor: LineCursor, size: int) -> bytes:
    if size > LARGEST_BINARY:
        raise CorruptBinary(f"the stated size of {size} bytes is above {LARGEST_BINARY}")
    inflate = zlib.decompressobj()
    result = bytearray()
    try:
        while cursor.line:
            result += inflate.decompress(_decode_line(cursor.line), size + 1 - len(result))
            if len(result) > size:
                raise CorruptBinary(f"the data is larger than the stated {size} bytes")
            cursor.advance()
    except zlib.error as e:
        raise CorruptBinary(f"the data does not unpack: {e}") from e
    if not cursor.more or not inflate.eof or len(result) != size:
        raise CorruptBinary(f"the data ends after {len(result)} of {size} bytes")
    cursor.advance()  # the empty line that ends a half
    return bytes(result)


def _decode_line(line: bytes) -> bytes:
    count = _LENGTHS.find(line[:1]) + 1
    room = (len(line) - 1) // 5 * 4
    if (len(line) - 1) % 5 or not room - 4 < count <= room:
        raise CorruptBinary("a line of the data has the wrong length")
    try:
        return base64.b85decode(line[1:])[:count]
    except ValueError as e:
        raise CorruptBinary("a line of the data is not base 85") from e
