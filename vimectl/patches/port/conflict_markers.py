"""The conflicts in a merged file, as data: what each side has between git's markers (diff3 style)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

Lines = list[bytes]
_MARKERS = {b"<<<<<<< ": "release", b"||||||| ": "base", b">>>>>>> ": "end"}


@dataclass
class Block:
    """One conflict: the lines of each side, and ``text``, all of it with its markers."""

    release: Lines = field(default_factory=list)
    base: Lines = field(default_factory=list)
    patched: Lines = field(default_factory=list)
    text: Lines = field(default_factory=list)


def settle(content: bytes, decide: Callable[[Block], Lines | None]) -> tuple[bytes, int]:
    """Replace the conflicts for which ``decide`` has an answer; returns how many are left, too."""
    result: Lines = []
    block: Block | None = None
    side: Lines = []
    left = 0
    for line in BytesIO(content):
        marker = _marker(line, block is not None)
        if marker == "release":
            block = Block()
        if block is None:
            result.append(line)
            continue
        block.text.append(line)
        if marker == "end":
            decided = decide(block)
            left += decided is None
            result += block.text if decided is None else decided
            block = None
        elif marker:
            side = getattr(block, marker)
        else:
            side.append(line)
    return b"".join(result + (block.text if block else [])), left


def _marker(line: bytes, inside: bool) -> str | None:
    if (
        inside and line.rstrip(b"\r\n") == b"======="
    ):  # the one that has no label; headings are underlined longer
        return "patched"
    for prefix, name in _MARKERS.items():
        if line.startswith(prefix) and (inside or name == "release"):
            return name
    return None
