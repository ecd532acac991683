"""Read the lines from ``diff --git`` or ``---`` to the first hunk: names, modes, blob ids, and the action.

The rules are those of `git apply`, which is strict here: two lines about the same thing must agree. unidiff
checks none of that, and reads neither quoted names nor renames as git does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from vimectl.patches.patchfile import names
from vimectl.patches.patchfile.file_diff import DiffAction, FileDiff, MalformedDiff

_MODE = re.compile(rb"\s*\+?([0-7]{1,10})(?=\s|$)")  # as strtoul reads it
_INDEX = re.compile(rb"([^. ]{0,40})\.\.([^ ]{0,40})(?: (.*))?$")
_FIELDS = re.compile(
    rb"(---|\+\+\+|old mode|new mode|deleted file mode|new file mode|copy from|copy to"
    rb"|rename (?:from|to|old|new)|similarity index|dissimilarity index|index) (.*)\n",
    re.DOTALL,
)
_NO_NAME = "there is no name, or no more than {} of its folders; -p states how many to strip"


class _Header:
    """The header as read so far. Names are without ``a/`` and ``b/``; None: no file, or not yet stated."""

    action: DiffAction = "modify"
    old_name: bytes | None = None
    new_name: bytes | None = None
    old_mode: str | None = None
    new_mode: str | None = None
    old_blob: str | None = None
    new_blob: str | None = None

    def __init__(self, strip: int, default_name: bytes | None) -> None:
        self.strip = strip
        self.default_name = default_name


def is_field(line: bytes) -> bool:
    """Return True if a line can be one of a header, after the first one."""
    return _FIELDS.match(line) is not None


def read_git_header(lines: Sequence[bytes], start: int, strip: int) -> tuple[FileDiff, int]:
    """Read the header that starts at a ``diff --git`` line; return it with the index after it.

    Raises MalformedDiff when git refuses the file.
    """
    default = names.from_git_line(lines[start].removeprefix(b"diff --git ").removesuffix(b"\n"), strip)
    header = _Header(strip, default)
    at = start + 1
    while at < len(lines) and (found := _FIELDS.match(lines[at])):
        try:
            _read_field(header, found[1], found[2])
        except ValueError as e:
            raise MalformedDiff(at + 1, *e.args) from None
        at += 1
    created, deleted = header.action == "create", header.action == "delete"
    if created and header.old_name is not None:
        message = "the file is created, but the header has an old name for it"
        raise MalformedDiff(start + 1, "inconsistent-name", message)
    if header.old_name is None and header.new_name is None:
        header.old_name = header.new_name = default
    old, new = (None if name is None else os.fsdecode(name) for name in (header.old_name, header.new_name))
    # git ignores the first line of a diff at the end of the file.
    if (old is None and new is None) and not start + 1 == at == len(lines):
        raise MalformedDiff(start + 1, "no-name", _NO_NAME.format(strip))
    if (old is None and not created) != (new is None and not deleted):
        raise MalformedDiff(start + 1, "no-name", "the header has only one of the two names of the file")
    old, new = None if created else old, None if deleted else new
    states = header.old_mode, header.new_mode, header.old_blob, header.new_blob
    return FileDiff(start + 1, header.action, old, new, *states), at


def read_plain_header(lines: Sequence[bytes], start: int, strip: int) -> tuple[FileDiff, int]:
    """Read the ``---`` and ``+++`` lines of a diff without git's headers, as GNU diff writes them.

    Raises MalformedDiff when the lines name no file.
    """
    old, new = (line[4:].removesuffix(b"\n") for line in lines[start : start + 2])
    name = names.plain_diff_name(old, new, strip)
    if name is None:
        raise MalformedDiff(start + 1, "no-name", _NO_NAME.format(strip))
    path = os.fsdecode(name)
    if names.is_null(old) or (names.is_epoch(old) and not names.is_null(new)):
        return FileDiff(start + 1, "create", None, path), start + 2
    if names.is_null(new) or names.is_epoch(new):
        return FileDiff(start + 1, "delete", path, None), start + 2
    return FileDiff(start + 1, "modify", path, path, may_create=True), start + 2


def _read_field(header: _Header, field: bytes, rest: bytes) -> None:
    """Record one line. Raises ValueError with a rule and a message."""
    match field:
        case b"---":
            header.old_name = _agreeing(header, header.old_name, "create", rest)
        case b"+++":
            header.new_name = _agreeing(header, header.new_name, "delete", rest)
        case b"old mode":
            header.old_mode = _mode(rest)
        case b"new mode":
            header.new_mode = _mode(rest)
        case b"deleted file mode":
            _set_action(header, "delete")
            header.old_name, header.old_mode = header.default_name, _mode(rest)
        case b"new file mode":
            _set_action(header, "create")
            header.new_name, header.new_mode = header.default_name, _mode(rest)
        case b"copy from" | b"rename old" | b"rename from":
            header.old_name = _moved(header, field, rest)
        case b"copy to" | b"rename new" | b"rename to":
            header.new_name = _moved(header, field, rest)
        case b"index" if found := _INDEX.match(rest):  # git ignores a malformed one; lint reports it
            header.old_blob, header.new_blob = os.fsdecode(found[1]), os.fsdecode(found[2])
            if found[3] is not None:
                header.old_mode = _mode(found[3])


def _agreeing(header: _Header, known: bytes | None, absent: DiffAction, rest: bytes) -> bytes | None:
    """Return the name on a line, which the action ``absent`` requires to be ``/dev/null``."""
    name = names.strip_folders(names.written_name(rest), header.strip)
    if header.action == absent:
        agrees, name = known is None and names.is_null(rest), None
    else:
        agrees = known in (None, name)
    if not agrees:
        raise ValueError("inconsistent-name", f"{os.fsdecode(rest)!r} is not what the header means")
    return name


def _mode(rest: bytes) -> str:
    found = _MODE.match(rest)
    if not found:
        raise ValueError("inconsistent-header", f"{os.fsdecode(rest)!r} is not a file mode")
    return f"{int(found[1], 8):06o}"


def _moved(header: _Header, field: bytes, rest: bytes) -> bytes | None:
    _set_action(header, "copy" if field.startswith(b"copy") else "rename")
    return names.strip_folders(names.written_name(rest, rename=True), max(header.strip - 1, 0))


def _set_action(header: _Header, action: DiffAction) -> None:
    if header.action not in ("modify", action):
        raise ValueError("inconsistent-header", "the header has contradictory lines")
    header.action = action
