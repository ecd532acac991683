"""Read the lines from ``diff --git`` or ``---`` to the first hunk: names, modes, blob ids, and the action.

The rules are those of `git apply`, which is strict here: two lines about the same thing must agree.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from vimectl.patches.patchfile import names
from vimectl.patches.patchfile.cursor import LineCursor, MalformedDiff
from vimectl.patches.patchfile.file_diff import DiffAction

_MODE = re.compile(rb"\s*([0-7]{1,10})(?=\s|$)")
_INDEX = re.compile(rb"([^. ]{0,40})\.\.([^ ]{0,40})(?: (.*))?$")
_PREFIXES = (
    *(b"--- ", b"+++ ", b"old mode ", b"new mode ", b"deleted file mode ", b"new file mode "),
    *(b"copy from ", b"copy to ", b"rename old ", b"rename new ", b"rename from ", b"rename to "),
    *(b"similarity index ", b"dissimilarity index ", b"index "),
)


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


def read_git_header(cursor: LineCursor, stale: DiffHeader | None) -> DiffHeader:
    """Read the header that starts at a ``diff --git`` line, up to its end.

    git skips a ``diff --git`` line that no header line follows, but keeps its names (``stale``), so the next
    header must agree with them.

    Raises:
        MalformedDiff: git refuses the file; the cursor is at the line.
    """
    header = DiffHeader(
        cursor.number, default_name=names.from_git_line(cursor.line.removeprefix(b"diff --git "))
    )
    if stale:
        header.old_name, header.new_name = stale.old_name, stale.new_name
    cursor.advance()
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
    return header


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
    name = names.plain_diff_name(old, new)
    created = names.is_null(old) or (names.is_epoch(old) and not names.is_null(new))
    if created or names.is_null(new) or names.is_epoch(new):
        header.created, header.deleted = created, not created
    if name is None:
        raise MalformedDiff("no-name", "the --- and +++ lines name no file below a/ and b/")
    if stale and header.created:
        raise MalformedDiff("inconsistent-name", "a diff header without a diff is followed by another file")
    header.old_name = None if header.created else name
    header.new_name = None if header.deleted else name
    return header


def _read_line(header: DiffHeader, line: bytes) -> bool:
    """Record one line; return False if it does not belong to a header."""
    prefix = next((prefix for prefix in _PREFIXES if line.startswith(prefix)), None)
    rest = line.removeprefix(prefix or b"")
    match prefix:
        case b"--- ":
            header.old_name = _agreeing(header.old_name, bool(header.created), rest)
        case b"+++ ":
            header.new_name = _agreeing(header.new_name, bool(header.deleted), rest)
        case b"old mode ":
            header.old_mode = _mode(rest)
        case b"new mode ":
            header.new_mode = _mode(rest)
        case b"deleted file mode ":
            header.deleted, header.old_name, header.old_mode = True, header.default_name, _mode(rest)
        case b"new file mode ":
            header.created, header.new_name, header.new_mode = True, header.default_name, _mode(rest)
        case b"copy from ":
            header.copied, header.old_name = True, _moved(rest)
        case b"copy to ":
            header.copied, header.new_name = True, _moved(rest)
        case b"rename old " | b"rename from ":
            header.renamed, header.old_name = True, _moved(rest)
        case b"rename new " | b"rename to ":
            header.renamed, header.new_name = True, _moved(rest)
        case b"index " if found := _INDEX.match(rest):  # git ignores a malformed one; lint reports it
            header.old_blob, header.new_blob = os.fsdecode(found[1]), os.fsdecode(found[2])
            if found[3] is not None:
                header.old_mode = _mode(found[3])
    return prefix is not None


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


def _moved(rest: bytes) -> bytes | None:
    name = names.raw_name(rest, rename=True)
    return re.sub(rb"/{2,}", b"/", name) if name else None
