"""Write what hostile processes print to a log file: without control characters, and not endlessly."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

MAX_BYTES = 16 * 2**20
# Control characters but tab and newline: a terminal would obey them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Return a text with escapes such as ``\x1b`` for its control characters."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


class OutputLog:
    """A log file of at most MAX_BYTES, created when there is something to write. A full disk is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._left = MAX_BYTES

    def write(self, printed: bytes) -> None:
        """Append what a process has printed."""
        if not printed or self._left <= 0:
            return
        text = printable(printed[: self._left].decode(errors="replace"))
        self._left -= len(printed)
        if self._left <= 0:
            text += f"\n--- more than {MAX_BYTES} bytes: further output is not kept\n"
        with contextlib.suppress(OSError), self.path.open("a", encoding="utf-8", errors="replace") as file:
            file.write(text)
