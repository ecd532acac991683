"""Find where the hunks of a file fit, by git's rules, and put them there.

A hunk is tried where it says, then one line further down, one up, two down, and so on. One that begins at
line 1 must fit there, and one that ends without context at the end of the file. No line is patched twice.

One rule is not git's: a context line without a newline fits only a line without one. Git takes the line
``d`` for the beginning of ``d\\n``, and joins what follows to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from vimectl.patches.patchfile.model import Hunk


class Image:
    """The lines of a file while hunk after hunk is put in; ``patched`` marks those that a hunk has made."""

    def __init__(self, content: bytes) -> None:
        self.lines = BytesIO(content).readlines()
        self.patched = bytearray(len(self.lines))

    def content(self) -> bytes:
        return b"".join(self.lines)

    def replace(self, place: Place) -> None:
        end = place.position + place.count
        self.lines[place.position : end] = place.lines
        self.patched[place.position : end] = b"\1" * len(place.lines)


@dataclass(frozen=True)
class Place:
    """Where a hunk fits: ``count`` lines from ``position`` become ``lines``.

    ``offset`` is how many lines lower that is than it says, ``fuzz`` how many lines of context at each end
    were left out to make it fit.
    """

    position: int
    count: int
    lines: list[bytes]
    offset: int
    fuzz: int = 0


def find(image: Image, hunk: Hunk, most_fuzz: int = 0) -> Place | None:
    """Return where a hunk fits, or None.

    With ``most_fuzz`` up to as many lines of context at each end may be ignored, as `patch` does it.
    """
    old, new = hunk.side("-"), hunk.side("+")
    leading, trailing = hunk.context()
    said = hunk.new_start - 1 if hunk.new_start else 0
    for fuzz in range(min(most_fuzz, max(leading, trailing)) + 1):
        head, tail = min(fuzz, leading), min(fuzz, trailing)
        sought = old[head : len(old) - tail]
        at_start = not fuzz and hunk.old_start <= 1
        at_end = not fuzz and trailing == 0
        position = _find(image, sought, said + head, at_start, at_end)
        if position is not None:
            offset = position - said - head
            return Place(position, len(sought), new[head : len(new) - tail], offset, fuzz)
    return None


def put(image: Image, hunk: Hunk) -> bool:
    """Put a hunk where it fits, or return False and leave the image as it is."""
    found = find(image, hunk)
    if found is None:
        return False
    image.replace(found)
    return True


def undone(hunk: Hunk) -> Hunk:
    """Return the hunk that takes a hunk back."""
    signs = {b"-": b"+", b"+": b"-"}
    body = b"".join(signs.get(line[:1], line[:1]) + line[1:] for line in BytesIO(hunk.body))
    return Hunk(hunk.line, hunk.new_start, hunk.new_count, hunk.old_start, hunk.old_count, body)


def _find(image: Image, sought: list[bytes], said: int, at_start: bool, at_end: bool) -> int | None:
    last = len(image.lines) - len(sought)
    if at_start or at_end:
        place = 0 if at_start else last
        fits = last >= 0 and not (at_start and at_end and last) and _fits(image, sought, place)
        return place if fits else None
    said = min(said, len(image.lines))
    if not sought or _fits(image, sought, said):
        return said
    # Nearest first, and of two as near the one further down.
    begins = (place for place, line in enumerate(image.lines) if line == sought[0] and place <= last)
    nearest = sorted(begins, key=lambda place: (abs(place - said), place < said))
    return next((place for place in nearest if _fits(image, sought, place)), None)


def _fits(image: Image, sought: list[bytes], place: int) -> bool:
    end = place + len(sought)
    return image.lines[place:end] == sought and not any(image.patched[place:end])
