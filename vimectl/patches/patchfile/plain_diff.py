"""The ``---`` and ``+++`` lines of a diff without git's headers, as GNU diff writes them."""

from __future__ import annotations

from vimectl.patches.patchfile import names
from vimectl.patches.patchfile.cursor import Cursor
from vimectl.patches.patchfile.header import Header, Malformed


def read(cursor: Cursor, stale: Header | None) -> Header:
    """Read the two lines at the cursor, and leave it behind them.

    ``stale`` is a ``diff --git`` line that nothing followed (see ``header.read``).
    Raises Malformed when they name no file.
    """
    found = Header(cursor.number, created=None, deleted=None)
    old = cursor.line.removeprefix(b"--- ")
    cursor.advance()
    new = cursor.line.removeprefix(b"+++ ")
    cursor.advance()
    if names.is_null(old):
        name = _only(new)
        found.created, found.deleted = True, False
    elif names.is_null(new):
        name = _only(old)
        found.created, found.deleted = False, True
    else:
        name = names.traditional(old, new)
        if names.is_epoch(old):
            found.created, found.deleted = True, False
        elif names.is_epoch(new):
            found.created, found.deleted = False, True
    if name is None:
        raise Malformed("no-name", "the --- and +++ lines name no file below a/ and b/")
    if stale and found.created:
        raise Malformed("inconsistent-name", "a diff header without a diff, and then another file")
    found.old_name = None if found.created else name
    found.new_name = None if found.deleted else name
    return found


def _only(line: bytes) -> bytes | None:
    written = names.written(line, stamped=True)
    return names.stripped(written) if written else None
