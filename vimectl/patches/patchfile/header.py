"""Read the lines from ``diff --git`` or ``---`` to the first hunk: names, modes, blob ids, and the action.

The rules are those of `git apply`, which is strict here: two lines about the same thing must agree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from vimectl.patches.patchfile import names
from vimectl.patches.patchfile.cursor import LineCursor, MalformedDiff
from vimectl.patches.patchfile.file_diff import DiffAction

_MODE = re.compile(rb"\s*([0-7]{1,10})(?=\s|$)")
_INDEX = re.compile(rb"([^. ]{0,40})\.\.([^ ]{0,40})(?: (.*))?$")


@dataclass
class DiffHeader:
    """The header as read so far. Names are without ``a/`` and ``b/``; None: no file, or not yet stated.

    ``created`` and ``deleted`` are None where they follow from the hunks only (diffs without git's headers).
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
    def action(self) -> DiffAction:
        if self.created:
            return "create"
        if self.deleted:
            return "delete"
        return "rename" if self.renamed else "copy" if self.copied else "modify"

    @property
    def changes_more_than_content(self) -> bool:
        modes = self.old_mode and self.new_mode and self.old_mode != self.new_mode
        return bool(self.created or self.deleted or self.renamed or self.copied or modes)


_RecordLine = Callable[[DiffHeader, bytes], None]


def read_git_header(cursor: LineCursor, stale: DiffHeader | None) -> DiffHeader | None:
    """Read the header that starts at a ``diff --git`` line, up to its end.

    Returns None when no header line follows: git skips it. But git keeps the names of a skipped line
    (``stale``), so the next header must agree with them.

    Raises:
        MalformedDiff: git refuses the file; the cursor is at the line.
    """
    header = DiffHeader(
        cursor.number, default_name=names.from_git_line(cursor.line.removeprefix(b"diff --git "))
    )
    if stale:
        header.old_name, header.new_name = stale.old_name, stale.new_name
    cursor.advance()
    first = cursor.start
    while cursor.more and cursor.whole and _read_line(header, cursor.line):
        if bool(header.created) + bool(header.deleted) + header.renamed + header.copied > 1:
            raise MalformedDiff("inconsistent-header", "the header has contradictory lines")
        cursor.advance()
    if header.created and header.old_name is not None:
        raise MalformedDiff("inconsistent-name", "the file is created, but the header has an old name for it")
    if header.old_name is None and header.new_name is None:
        if header.default_name is None:
            raise MalformedDiff("no-name", "the header names no file below a/ and b/")
        header.old_name = header.new_name = header.default_name
    if (header.new_name is None and not header.deleted) or (header.old_name is None and not header.created):
        raise MalformedDiff("no-name", "the header has only one of the two names of the file")
    return None if cursor.start == first else header


def read_plain_header(cursor: LineCursor, stale: DiffHeader | None) -> DiffHeader:
    """Read the ``---`` and ``+++`` lines of a diff without git's headers, as GNU diff writes them.

    ``stale`` is a ``diff --git`` line without a header (see ``read_git_header``).
    Raises MalformedDiff when the lines name no file.
    """
    header = DiffHeader(cursor.number, created=None, deleted=None)
    old = cursor.line.removeprefix(b"--- ")
    cursor.advance()
    new = cursor.line.removeprefix(b"+++ ")
    cursor.advance()
    if names.is_null(old):
        name = _only_name(new)
        header.created, header.deleted = True, False
    elif names.is_null(new):
        name = _only_name(old)
        header.created, header.deleted = False, True
    else:
        name = names.plain_diff_name(old, new)
        if names.is_epoch(old):
            header.created, header.deleted = True, False
        elif names.is_epoch(new):
            header.created, header.deleted = False, True
    if name is None:
        raise MalformedDiff("no-name", "the --- and +++ lines name no file below a/ and b/")
    if stale and header.created:
        raise MalformedDiff("inconsistent-name", "a diff header without a diff is followed by another file")
    header.old_name = None if header.created else name
    header.new_name = None if header.deleted else name
    return header


def _only_name(line: bytes) -> bytes | None:
    name = names.raw_name(line, plain_diff=True)
    return names.strip_prefix(name) if name else None


def _read_line(header: DiffHeader, line: bytes) -> bool:
    """Record one line; return False if it does not belong to a header."""
    for prefix, record in _LINES:
        if line.startswith(prefix):
            if record:
                record(header, line[len(prefix) :])
            return True
    return False


def _old_name(header: DiffHeader, rest: bytes) -> None:
    header.old_name = _agreeing(header.old_name, bool(header.created), rest)


def _new_name(header: DiffHeader, rest: bytes) -> None:
    header.new_name = _agreeing(header.new_name, bool(header.deleted), rest)


def _agreeing(known: bytes | None, absent: bool, rest: bytes) -> bytes | None:
    if known is None and absent:
        if not names.is_null(rest):
            raise MalformedDiff("inconsistent-name", "there is a name where the header means /dev/null")
        return None
    raw = names.raw_name(rest)
    name = names.strip_prefix(raw) if raw else None
    if known is not None and (absent or name != known):
        message = f"{os.fsdecode(rest)!r} is not the file that the header named before"
        raise MalformedDiff("inconsistent-name", message)
    return name


def _mode(rest: bytes) -> str:
    found = _MODE.match(rest)
    if not found:
        raise MalformedDiff("inconsistent-header", f"{os.fsdecode(rest)!r} is not a file mode")
    return f"{int(found[1], 8):06o}"


def _old_mode(header: DiffHeader, rest: bytes) -> None:
    header.old_mode = _mode(rest)


def _new_mode(header: DiffHeader, rest: bytes) -> None:
    header.new_mode = _mode(rest)


def _deleted(header: DiffHeader, rest: bytes) -> None:
    header.deleted, header.old_name, header.old_mode = True, header.default_name, _mode(rest)


def _created(header: DiffHeader, rest: bytes) -> None:
    header.created, header.new_name, header.new_mode = True, header.default_name, _mode(rest)


def _moved(flag: Literal["renamed", "copied"], field: Literal["old_name", "new_name"]) -> _RecordLine:
    """Return a function that records one of the two lines of a rename or copy."""

    def record(header: DiffHeader, rest: bytes) -> None:
        name = names.raw_name(rest, rename=True)
        setattr(header, flag, True)
        setattr(header, field, re.sub(rb"/{2,}", b"/", name) if name else None)

    return record


def _index(header: DiffHeader, rest: bytes) -> None:
    found = _INDEX.match(rest)
    if not found:
        return  # git ignores it, and so does apply; lint reports it
    header.old_blob, header.new_blob = os.fsdecode(found[1]), os.fsdecode(found[2])
    if found[3] is not None:
        _old_mode(header, found[3])


_LINES: tuple[tuple[bytes, _RecordLine | None], ...] = (
    (b"--- ", _old_name),
    (b"+++ ", _new_name),
    (b"old mode ", _old_mode),
    (b"new mode ", _new_mode),
    (b"deleted file mode ", _deleted),
    (b"new file mode ", _created),
    (b"copy from ", _moved("copied", "old_name")),
    (b"copy to ", _moved("copied", "new_name")),
    (b"rename old ", _moved("renamed", "old_name")),
    (b"rename new ", _moved("renamed", "new_name")),
    (b"rename from ", _moved("renamed", "old_name")),
    (b"rename to ", _moved("renamed", "new_name")),
    (b"similarity index ", None),
    (b"dissimilarity index ", None),
    (b"index ", _index),
)
