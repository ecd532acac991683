"""Walk over the lines of a patch file without holding them all as objects."""

from __future__ import annotations

import re


class MalformedDiff(ValueError):
    """Text that git refuses to read. ``rule`` names the defect; ``line``: None for the cursor's line."""

    def __init__(self, rule: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.line = line


class LineCursor:
    """The current position in a patch file.

    ``line`` is the current line without its line feed, ``number`` counts from 1, and ``more`` is False at
    the end. A carriage return is content. ``whole`` is False for a last line without a line feed.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0
        self.number = 0
        self.advance()

    def advance(self) -> None:
        """Move to the next line."""
        self.start = self._next
        self.more = self.start < len(self._data)
        end = self._data.find(b"\n", self.start)
        self.whole = end >= 0
        self._next = end + 1 if self.whole else len(self._data)
        self.line = self._data[self.start : end if self.whole else None] if self.more else b""
        self.number += 1

    def seek(self, pattern: re.Pattern[bytes]) -> None:
        """Move to the first line from here that a pattern (``^``, MULTILINE) matches, or to the end."""
        found = pattern.search(self._data, self.start)
        position = found.start() if found else len(self._data)
        # advance() adds the missing one.
        self.number += self._data.count(b"\n", self.start, position) - 1
        self._next = position
        self.advance()

    @property
    def left(self) -> int:
        """Return the number of bytes after the current line."""
        return len(self._data) - self._next

    def following(self) -> tuple[bytes, bytes]:
        """Return the next two lines, each cut to twice the length of the longest path."""
        first = self._data.find(b"\n", self._next) + 1 or len(self._data)
        second = self._data.find(b"\n", first) + 1 or len(self._data)
        return self._data[self._next : first][:8192], self._data[first:second][:8192]

    def since(self, start: int) -> bytes:
        """Return the text from ``start`` up to the current line."""
        return self._data[start : self.start]
