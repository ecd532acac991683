"""Read the lines from ``diff --git`` or ``---`` to the first hunk: names, modes, blob ids, and the action.

The rules are those of `git apply`, which is strict here: two lines about the same thing must agree. unidiff
checks none of that, and reads neither quoted names nor renames as git does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from vimectl.patches.patchfile import names
from vimectl.patches.patchfile.file_diff import BinaryData, DiffAction, FileDiff, Hunk, MalformedDiff

_MODE = re.compile(rb"\s*\+?([0-7]{1,10})(?=\s|$)")  # as strtoul reads it
_INDEX = re.compile(rb"([^. ]{0,40})\.\.([^ ]{0,40})(?: (.*))?$")
_FIELDS = re.compile(
    rb"(---|\+\+\+|old mode|new mode|deleted file mode|new file mode|(?:copy|rename) (?:from|to)"
    rb"|rename old|rename new|similarity index|dissimilarity index|index) (.*)",
    re.DOTALL,
)


@dataclass
class DiffHeader:
    """The header as read so far. Names are without ``a/`` and ``b/``; None: no file, or not yet stated.

    ``created`` and ``deleted`` are None where they follow from the hunks only (diffs without git's headers).
    """

    line: int
    strip: int
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

    def diff(self, hunks: tuple[Hunk, ...], binary: tuple[BinaryData, ...] | None) -> FileDiff:
        """Return the diff of one file."""
        moved: DiffAction = "rename" if self.renamed else "copy" if self.copied else "modify"
        action: DiffAction = "create" if self.created else "delete" if self.deleted else moved
        old = None if self.created or self.old_name is None else os.fsdecode(self.old_name)
        new = None if self.deleted or self.new_name is None else os.fsdecode(self.new_name)
        states = (self.old_mode, self.new_mode, self.old_blob, self.new_blob)
        return FileDiff(self.line, action, old, new, *states, hunks, binary, self.created is None)

    @property
    def changes_more_than_content(self) -> bool:
        modes = self.old_mode and self.new_mode and self.old_mode != self.new_mode
        return bool(self.created or self.deleted or self.renamed or self.copied or modes)


def is_field(line: bytes) -> bool:
    """Return True if a line can be one of a header, after the first one."""
    return line.endswith(b"\n") and _FIELDS.match(line) is not None


def read_git_header(
    lines: Sequence[bytes], at: int, strip: int, stale: DiffHeader | None
) -> tuple[DiffHeader, int]:
    """Read the header that starts at a ``diff --git`` line; return it with the index after it.

    git skips a ``diff --git`` line that no header line follows, but keeps its names (``stale``), so the next
    header must agree with them.

    Raises MalformedDiff when git refuses the file.
    """
    default = names.from_git_line(lines[at].removeprefix(b"diff --git ").removesuffix(b"\n"), strip)
    header = DiffHeader(at + 1, strip, default_name=default)
    if stale:
        header.old_name, header.new_name = stale.old_name, stale.new_name
    at += 1
    while at < len(lines) and lines[at].endswith(b"\n") and (found := _FIELDS.match(lines[at][:-1])):
        try:
            _read_field(header, found[1], found[2])
        except ValueError as e:
            rule, message = e.args
            raise MalformedDiff(rule, message, at + 1) from None
        if bool(header.created) + bool(header.deleted) + header.renamed + header.copied > 1:
            raise MalformedDiff("inconsistent-header", "the header has contradictory lines", at + 1)
        at += 1
    if header.created and header.old_name is not None:
        message = "the file is created, but the header has an old name for it"
        raise MalformedDiff("inconsistent-name", message, header.line)
    if header.old_name is None and header.new_name is None:
        if header.default_name is None:
            raise MalformedDiff("no-name", f"the header names no file{_below(strip)}", header.line)
        header.old_name = header.new_name = header.default_name
    if (header.new_name is None and not header.deleted) or (header.old_name is None and not header.created):
        raise MalformedDiff("no-name", "the header has only one of the two names of the file", header.line)
    return header, at


def read_plain_header(lines: Sequence[bytes], at: int, strip: int, stale: DiffHeader | None) -> DiffHeader:
    """Read the ``---`` and ``+++`` lines of a diff without git's headers, as GNU diff writes them.

    ``stale`` is a ``diff --git`` line without a header (see ``read_git_header``).
    Raises MalformedDiff when the lines name no file.
    """
    header = DiffHeader(at + 1, strip, created=None, deleted=None)
    old, new = (line[4:].removesuffix(b"\n") for line in lines[at : at + 2])
    name = names.plain_diff_name(old, new, strip)
    created = names.is_null(old) or (names.is_epoch(old) and not names.is_null(new))
    if created or names.is_null(new) or names.is_epoch(new):
        header.created, header.deleted = created, not created
    if name is None:
        raise MalformedDiff("no-name", f"the --- and +++ lines name no file{_below(strip)}", header.line)
    if stale and header.created:
        message = "a diff header without a diff is followed by another file"
        raise MalformedDiff("inconsistent-name", message, header.line)
    header.old_name = None if header.created else name
    header.new_name = None if header.deleted else name
    return header


def _below(strip: int) -> str:
    return f" below {strip} folder{'s' * (strip > 1)}: -p states how many to strip" if strip else ""


def _read_field(header: DiffHeader, field: bytes, rest: bytes) -> None:
    """Record one line. Raises ValueError with a rule and a message."""
    match field:
        case b"---":
            header.old_name = _agreeing(header, header.old_name, bool(header.created), rest)
        case b"+++":
            header.new_name = _agreeing(header, header.new_name, bool(header.deleted), rest)
        case b"old mode":
            header.old_mode = _mode(rest)
        case b"new mode":
            header.new_mode = _mode(rest)
        case b"deleted file mode":
            header.deleted, header.old_name, header.old_mode = True, header.default_name, _mode(rest)
        case b"new file mode":
            header.created, header.new_name, header.new_mode = True, header.default_name, _mode(rest)
        case b"copy from" | b"rename old" | b"rename from":
            header.old_name = _moved(header, field, rest)
        case b"copy to" | b"rename new" | b"rename to":
            header.new_name = _moved(header, field, rest)
        case b"index" if found := _INDEX.match(rest):  # git ignores a malformed one; lint reports it
            header.old_blob, header.new_blob = os.fsdecode(found[1]), os.fsdecode(found[2])
            if found[3] is not None:
                header.old_mode = _mode(found[3])


def _agreeing(header: DiffHeader, known: bytes | None, absent: bool, rest: bytes) -> bytes | None:
    if known is None and absent:
        if not names.is_null(rest):
            raise ValueError("inconsistent-name", "there is a name where the header means /dev/null")
        return None
    name = names.strip_folders(names.written_name(rest), header.strip)
    if known is not None and (absent or name != known):
        message = f"{os.fsdecode(rest)!r} is not the file that the header named before"
        raise ValueError("inconsistent-name", message)
    return name


def _mode(rest: bytes) -> str:
    found = _MODE.match(rest)
    if not found:
        raise ValueError("inconsistent-header", f"{os.fsdecode(rest)!r} is not a file mode")
    return f"{int(found[1], 8):06o}"


def _moved(header: DiffHeader, field: bytes, rest: bytes) -> bytes | None:
    header.copied |= field.startswith(b"copy")
    header.renamed |= field.startswith(b"rename")
    return names.strip_folders(names.written_name(rest, rename=True), max(header.strip - 1, 0))
