"""The lines between ``diff --git`` and the first hunk: names, modes, blob ids, and what becomes of the file.

The rules are those of `git apply`, which is strict here: what two lines say of one thing must agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vimectl.patches.patchfile import names
from vimectl.patches.patchfile.cursor import Cursor
from vimectl.patches.patchfile.model import Action

_MODE = re.compile(rb"\s*([0-7]{1,10})(?=\s|$)")
_INDEX = re.compile(rb"([^. ]{0,40})\.\.([^ ]{0,40})(?: (.*))?$")


class Malformed(ValueError):
    """What git refuses to read; ``rule`` names it, ``line`` is where, if not where the cursor is."""

    def __init__(self, rule: str, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.line = line


@dataclass
class Header:
    """What was read so far. Names are as in the file, below ``a/`` and ``b/``; None: none, or not yet said.

    ``created`` and ``deleted`` are None where only content can tell (diffs without git's headers).
    """

    line: int
    old_name: bytes | None = None
    new_name: bytes | None = None
    default_name: bytes | None = None
    created: bool | None = False
    deleted: bool | None = False
    renamed: bool = False
    copied: bool = False
    old_mode: str | None = None
    new_mode: str | None = None
    old_blob: str | None = None
    new_blob: str | None = None

    @property
    def action(self) -> Action:
        if self.created:
            return "create"
        if self.deleted:
            return "delete"
        return "rename" if self.renamed else "copy" if self.copied else "modify"

    @property
    def changes_more_than_content(self) -> bool:
        modes = self.old_mode and self.new_mode and self.old_mode != self.new_mode
        return bool(self.created or self.deleted or self.renamed or self.copied or modes)


def read(cursor: Cursor, stale: Header | None) -> Header | None:
    """Read the header that begins at a ``diff --git`` line, up to where it ends.

    Returns None when no line of a header follows: git passes over it. But the names that it gave (``stale``)
    must then be those of the next one, as git has them still.

    Raises:
        Malformed: git refuses the file; the cursor is at the line.
    """
    header = Header(cursor.number, default_name=names.from_git_line(cursor.line.removeprefix(b"diff --git ")))
    if stale:
        header.old_name, header.new_name = stale.old_name, stale.new_name
    cursor.advance()
    first = cursor.start
    while cursor.more and cursor.whole and _take(header, cursor.line):
        if header.created + header.deleted + header.renamed + header.copied > 1:  # type: ignore[operator]
            raise Malformed("inconsistent-header", "the header says two things that exclude each other")
        cursor.advance()
    if header.created and header.old_name is not None:
        raise Malformed("inconsistent-name", "a file that is created, and an old name of it before")
    if header.old_name is None and header.new_name is None:
        if header.default_name is None:
            raise Malformed("no-name", "the header names no file below a/ and b/")
        header.old_name = header.new_name = header.default_name
    if (header.new_name is None and not header.deleted) or (header.old_name is None and not header.created):
        raise Malformed("no-name", "the header names only one side of the file")
    return None if cursor.start == first else header


def _take(header: Header, line: bytes) -> bool:
    """Take in one line; return whether it belongs to a header."""
    for prefix, take in _LINES:
        if line.startswith(prefix):
            take(header, line[len(prefix) :])
            return True
    return False


def _old_name(header: Header, rest: bytes) -> None:
    header.old_name = _agreeing(header.old_name, bool(header.created), rest)


def _new_name(header: Header, rest: bytes) -> None:
    header.new_name = _agreeing(header.new_name, bool(header.deleted), rest)


def _agreeing(known: bytes | None, absent: bool, rest: bytes) -> bytes | None:
    if known is None and absent:
        if not names.is_null(rest):
            raise Malformed("inconsistent-name", "there is a name where the header means /dev/null")
        return None
    written = names.written(rest)
    name = names.stripped(written) if written else None
    if known is not None and (absent or name != known):
        found = names.text(rest)
        raise Malformed("inconsistent-name", f"{found!r} is not the file that the header names before")
    return name


def _old_mode(header: Header, rest: bytes) -> None:
    header.old_mode = _mode(rest)


def _new_mode(header: Header, rest: bytes) -> None:
    header.new_mode = _mode(rest)


def _mode(rest: bytes) -> str:
    found = _MODE.match(rest)
    if not found:
        raise Malformed("inconsistent-header", f"{names.text(rest)!r} is not a file mode")
    return f"{int(found[1], 8):06o}"


def _deleted(header: Header, rest: bytes) -> None:
    header.deleted, header.old_name = True, header.default_name
    _old_mode(header, rest)


def _created(header: Header, rest: bytes) -> None:
    header.created, header.new_name = True, header.default_name
    _new_mode(header, rest)


def _renamed_from(header: Header, rest: bytes) -> None:
    header.renamed, header.old_name = True, _whole(rest)


def _renamed_to(header: Header, rest: bytes) -> None:
    header.renamed, header.new_name = True, _whole(rest)


def _copied_from(header: Header, rest: bytes) -> None:
    header.copied, header.old_name = True, _whole(rest)


def _copied_to(header: Header, rest: bytes) -> None:
    header.copied, header.new_name = True, _whole(rest)


def _whole(rest: bytes) -> bytes | None:
    written = names.written(rest, whole=True)
    return re.sub(rb"/{2,}", b"/", written) if written else None


def _index(header: Header, rest: bytes) -> None:
    found = _INDEX.match(rest)
    if not found:
        return  # git passes over it, and so do those who only apply; lint says it
    header.old_blob, header.new_blob = (names.text(found[side]) for side in (1, 2))
    if found[3] is not None:
        _old_mode(header, found[3])


def _nothing(header: Header, rest: bytes) -> None:
    """A line that says nothing about what to do."""


_LINES: tuple[tuple[bytes, Callable[[Header, bytes], None]], ...] = (
    (b"--- ", _old_name),
    (b"+++ ", _new_name),
    (b"old mode ", _old_mode),
    (b"new mode ", _new_mode),
    (b"deleted file mode ", _deleted),
    (b"new file mode ", _created),
    (b"copy from ", _copied_from),
    (b"copy to ", _copied_to),
    (b"rename old ", _renamed_from),
    (b"rename new ", _renamed_to),
    (b"rename from ", _renamed_from),
    (b"rename to ", _renamed_to),
    (b"similarity index ", _nothing),
    (b"dissimilarity index ", _nothing),
    (b"index ", _index),
)
