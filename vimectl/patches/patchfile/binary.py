"""The data of a `GIT binary patch`: base 85 lines of a zlib stream, either new content or a delta to it."""

from __future__ import annotations

import base64
import re
import zlib

from vimectl.patches.patchfile.cursor import Cursor
from vimectl.patches.patchfile.model import BinaryData

# What a stream may unpack to. A patch that says more is a trap, not a patch of source files.
LARGEST = 64 * 1024 * 1024
_METHOD = re.compile(rb"(literal|delta) (\d{1,10})$")
_LENGTHS = {character: count for count, character in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 1)}
_LENGTHS |= {character: count for count, character in enumerate(b"abcdefghijklmnopqrstuvwxyz", 27)}


class Corrupt(ValueError):
    """The data is not what git writes; the message says in what."""


def read(cursor: Cursor) -> tuple[BinaryData, ...]:
    """Read the one or two halves below ``GIT binary patch``. Raises Corrupt, the cursor where it is seen."""
    halves: list[BinaryData] = []
    while len(halves) < 2 and (found := _METHOD.match(cursor.line)):
        cursor.advance()
        halves.append(
            BinaryData("literal" if found[1] == b"literal" else "delta", _half(cursor, int(found[2])))
        )
    if not halves:
        raise Corrupt("neither 'literal SIZE' nor 'delta SIZE' follows")
    return tuple(halves)


def patched(content: bytes, half: BinaryData) -> bytes:
    """Return the content that a half makes of ``content``. Raises Corrupt when a delta is not for it."""
    if half.method == "literal":
        return half.data
    data = half.data
    expected, at = _size(data, 0)
    promised, at = _size(data, at)
    if expected != len(content) or promised > LARGEST:
        raise Corrupt("the delta is for other content")
    result = bytearray()
    while at < len(data):
        command = data[at]
        at += 1
        if command & 0x80:
            offset, size = 0, 0
            for bit in range(7):
                if command >> bit & 1:
                    if at >= len(data):
                        raise Corrupt("the delta ends early")
                    if bit < 4:
                        offset |= data[at] << 8 * bit
                    else:
                        size |= data[at] << 8 * (bit - 4)
                    at += 1
            size = size or 0x10000
            if offset + size > len(content):
                raise Corrupt("the delta copies from behind the end")
            result += content[offset : offset + size]
        elif command and at + command <= len(data):
            result += data[at : at + command]
            at += command
        else:
            raise Corrupt("the delta has an unknown command")
        if len(result) > promised:
            raise Corrupt("the delta makes more than it says")
    if len(result) != promised:
        raise Corrupt("the delta makes less than it says")
    return bytes(result)


def _half(cursor: Cursor, size: int) -> bytes:
    if size > LARGEST:
        raise Corrupt(f"the data says it has {size} bytes, more than {LARGEST}")
    inflate = zlib.decompressobj()
    result = bytearray()
    try:
        while cursor.line:
            result += inflate.decompress(_decoded(cursor.line), size + 1 - len(result))
            if len(result) > size:
                raise Corrupt(f"the data has more than the {size} bytes it says")
            cursor.advance()
    except zlib.error as e:
        raise Corrupt(f"the data does not unpack: {e}") from e
    if not cursor.more or not inflate.eof or len(result) != size:
        raise Corrupt(f"the data ends after {len(result)} of {size} bytes")
    cursor.advance()  # the empty line that ends a half
    return bytes(result)


def _decoded(line: bytes) -> bytes:
    count = _LENGTHS.get(line[0], 0)
    room = (len(line) - 1) // 5 * 4
    if (len(line) - 1) % 5 or not room - 4 < count <= room:
        raise Corrupt("a line of the data has the wrong length")
    try:
        return base64.b85decode(line[1:])[:count]
    except ValueError as e:
        raise Corrupt("a line of the data is not base 85") from e


def _size(data: bytes, at: int) -> tuple[int, int]:
    """Read a size of a delta, seven bits a byte."""
    size = shift = 0
    while at < len(data) and shift < 64:
        size |= (data[at] & 0x7F) << shift
        at += 1
        if not data[at - 1] & 0x80:
            return size, at
        shift += 7
    raise Corrupt("the delta has no sizes")
