"""Read and apply the data below ``GIT binary patch``, which no library reads.

Binary data is one or two halves of base 85 lines, each a zlib stream of new content or of a delta to it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vimectl.patches.patchfile.file_diff import BinaryData, FileDiff, PatchTooLarge

# Upper bound for the unpacked data of a patch file: source files never need more, and a zip bomb does.
LARGEST_BINARY = 64 * 1024 * 1024
# The same for all patches of a series together, which are kept in memory.
MOST_IN_SERIES = 4 * LARGEST_BINARY
_METHOD = re.compile(rb"(literal|delta) (\d{1,10})\n?$")
# The first letter of a line of data is its length in bytes: A is 1, a is 27.
_LENGTHS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class CorruptBinary(ValueError):
    """Binary data that git does not write; ``at`` is the index of the line."""

    def __init__(self, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.at = at


class BinaryBudget:
    """Count the unpacked binary data of the patches of a series."""

    def __init__(self) -> None:
        self._left = MOST_IN_SERIES

    def add(self, diffs: Iterable[FileDiff], origin: str) -> None:
        """Count the diffs of one patch. Raises PatchTooLarge when all patches together have too much."""
        self._left -= sum(diff.binary_size for diff in diffs)
        if self._left < 0:
            message = f"{origin}: the binary data of this patch and those before it is larger than"
            raise PatchTooLarge(f"{message} {MOST_IN_SERIES >> 20} MiB", "split the series, or leave it out")


def read_binary(
    lines: Sequence[bytes], at: int, limit: int = LARGEST_BINARY
) -> tuple[tuple[BinaryData, ...], int]:
    """Read one or two halves, and return them with the index after them.

    Raises CorruptBinary, also for more than ``limit`` bytes.
    """
    halves: list[BinaryData] = []
    while len(halves) < 2 and at < len(lines) and (found := _METHOD.match(lines[at])):
        begin = at
        data, at = _read_half(lines, at + 1, int(found[2]), limit)
        is_delta = found[1] == b"delta"
        size = max(len(data), _delta_size(data) if is_delta else 0)
        limit -= size
        if limit < 0:
            raise CorruptBinary(f"the binary data of the patch is larger than {LARGEST_BINARY} bytes", begin)
        halves.append(BinaryData("delta" if is_delta else "literal", data, size))
    if not halves:
        raise CorruptBinary("neither 'literal SIZE' nor 'delta SIZE' follows", at)
    return tuple(halves), at


def apply_binary(content: bytes, half: BinaryData) -> bytes:
    """Return the content that a half produces from ``content``.

    Raises CorruptBinary when a delta is damaged, or for other content.
    """
    if half.method == "literal":
        return half.data
    # Imported here because deltas are rare. It has no type stubs.
    from gitdb.fun import apply_delta_data, msb_size  # type: ignore[import-untyped]

    result = bytearray()

    def write(data: bytes) -> None:
        result.extend(data)
        if len(result) > promised:
            raise ValueError("the delta produces more than its stated size")

    try:
        # A size of more than ten bytes is none; msb_size would compute it.
        at, expected = msb_size(half.data[:10])
        size, promised = msb_size(half.data[at : at + 10])
        commands = half.data[at + size :]
        if expected == len(content) and promised <= LARGEST_BINARY:
            apply_delta_data(content, len(content), commands, len(commands), write)
    except (AssertionError, IndexError, ValueError) as e:
        raise CorruptBinary("the delta is damaged") from e
    if expected != len(content):
        raise CorruptBinary("the delta is for other content")
    if len(result) != promised:
        raise CorruptBinary("the delta is damaged")
    return bytes(result)


def _delta_size(delta: bytes) -> int:
    """Return the size of the content that a delta states to produce, in the second of its two numbers."""
    size = shift = numbers = 0
    for byte in delta[:20]:
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers += 1
            if numbers == 2:
                return size
            size = shift = 0
    return 0


def _read_half(lines: Sequence[bytes], at: int, size: int, limit: int) -> tuple[bytes, int]:
    if size > limit:
        message = f"with the stated {size} bytes, the binary data of the patch is above {LARGEST_BINARY}"
        raise CorruptBinary(message, at)
    import zlib  # here and below, because applying a series rarely reads binary data

    inflate = zlib.decompressobj()
    result = bytearray()
    while at < len(lines) and lines[at] != b"\n" and len(result) <= size:
        try:
            result += inflate.decompress(_decode_line(lines[at].rstrip(b"\n")), size + 1 - len(result))
        except (zlib.error, ValueError) as e:
            raise CorruptBinary(f"the data does not unpack: {e}", at) from e
        at += 1
    if at == len(lines) or not inflate.eof or len(result) != size:
        raise CorruptBinary(f"the data does not have the stated {size} bytes", min(at, len(lines) - 1))
    return bytes(result), at + 1  # an empty line ends a half


def _decode_line(line: bytes) -> bytes:
    from base64 import b85decode

    data = b85decode(line[1:])
    count = _LENGTHS.find(line[:1]) + 1
    if len(line) % 5 != 1 or not max(0, len(data) - 4) < count <= len(data):
        raise ValueError("a line has the wrong length")
    return data[:count]
