"""Walk over the lines of a patch file without ever holding them all as objects."""

from __future__ import annotations

import re


class Cursor:
    """``line`` is the current one without its line feed, ``number`` its number from 1; at the end ``more`` is
    False.

    A carriage return stays: it is content. ``whole`` is False for a last line that nothing ends.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0
        self.number = 0
        self.advance()

    def advance(self) -> None:
        """Go to the next line."""
        self.start = self._next
        self.more = self.start < len(self._data)
        end = self._data.find(b"\n", self.start)
        self.whole = end >= 0
        self._next = end + 1 if self.whole else len(self._data)
        self.line = self._data[self.start : end if self.whole else None] if self.more else b""
        self.number += 1

    def seek(self, pattern: re.Pattern[bytes]) -> None:
        """Go to the first line from here on that a pattern (``^``, MULTILINE) matches, or to the end."""
        found = pattern.search(self._data, self.start)
        place = found.start() if found else len(self._data)
        # One less than what advance() then adds.
        self.number += self._data.count(b"\n", self.start, place) - 1
        self._next = place
        self.advance()

    @property
    def left(self) -> int:
        """How many bytes follow the current line."""
        return len(self._data) - self._next

    def following(self) -> tuple[bytes, bytes]:
        """Return the next two lines, no more of them than the length of a name."""
        first = self._data.find(b"\n", self._next) + 1 or len(self._data)
        second = self._data.find(b"\n", first) + 1 or len(self._data)
        return self._data[self._next : first][:8192], self._data[first:second][:8192]

    def since(self, start: int) -> bytes:
        """Return the text from ``start`` to before the current line."""
        return self._data[start : self.start]
