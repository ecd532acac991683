"""File names as diffs write them: quoted like C strings, below ``a/`` and ``b/``, with a time stamp."""

from __future__ import annotations

import os
import re

# What no file system takes as a path.
LONGEST = 4096
_ESCAPES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}
_ESCAPE = re.compile(rb'\\(?:([abtnvfr"\\])|([0-3][0-7]{2}))')
_QUOTED = re.compile(rb'"((?:[^"\\]|\\[abtnvfr"\\]|\\[0-3][0-7]{2})*)"')
# GNU diff's and POSIX's time stamps, where blanks instead of the tab stand before them.
_STAMP = re.compile(rb" +(?:\d\d)?\d\d-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?: [-+]\d\d:?\d\d)?$")
_EPOCH = re.compile(rb"\t(1969-12-31|1970-01-01) (\d\d):(\d\d):00(?:\.0+)? ([-+])(\d\d):?(\d\d)$")


def text(name: bytes) -> str:
    """Return a name as the file system functions take it; bytes that are no UTF-8 survive."""
    return os.fsdecode(name)


def printable(message: str) -> str:
    """Return a message in which nothing moves a terminal's cursor or cannot be written to it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)


def unquoted(line: bytes) -> tuple[bytes, bytes] | None:
    """Read a quoted name at the start of a line; return it and what follows, or None when there is none."""
    found = _QUOTED.match(line)
    if not found:
        return None
    name = _ESCAPE.sub(lambda m: bytes([_ESCAPES[m[1]] if m[1] else int(m[2], 8)]), found[1])
    return name, line[found.end() :]


def is_null(line: bytes) -> bool:
    """Whether the rest of a ``---`` or ``+++`` line says that there is no file on this side."""
    return line == b"/dev/null" or line.startswith((b"/dev/null ", b"/dev/null\t", b"/dev/null\r"))


def stripped(name: bytes) -> bytes | None:
    """Return a name without its first folder (``a/``), or None when nothing is left or there is none."""
    rest = name.partition(b"/")[2]
    return re.sub(rb"/{2,}", b"/", rest) or None


def written(line: bytes, *, stamped: bool = False, whole: bool = False) -> bytes | None:
    """Return the name on the rest of a ``---`` or ``+++`` line as it stands there.

    ``stamped``: a diff without git's headers, where a time stamp may follow blanks. ``whole``: the line of a
    rename or copy, where a tab is part of the name.
    """
    if line.startswith(b'"') and (found := unquoted(line)):
        return found[0]
    end = re.search(rb"[\r\v\f]" if whole else rb"[\t\r\v\f]", line)
    if stamped and (stamp := _STAMP.search(line)):
        return line[: stamp.start()]
    return line[: end.start()] if end else line


def traditional(old: bytes, new: bytes) -> bytes | None:
    """Return the one file that a ``---`` and a ``+++`` line without git's headers are about.

    The shorter when one only has something tacked on to its end (``x.orig``, ``x~``), else the new one.
    """
    first = written(old, stamped=True)
    second = written(new, stamped=True)
    one, two = (stripped(name) if name else None for name in (first, second))
    if two is None or (one is not None and len(one) < len(two) and two.startswith(one)):
        return one
    return two


def is_epoch(line: bytes) -> bool:
    """Whether a name is followed by the time stamp by which GNU diff says that the file does not exist."""
    found = _EPOCH.search(line)
    if not found:
        return False
    day, hour, minute, sign, zone_hour, zone_minute = found.groups()
    zone = (int(zone_hour) * 60 + int(zone_minute)) * (-1 if sign == b"-" else 1)
    return int(hour) * 60 + int(minute) - zone == (24 * 60 if day.startswith(b"1969") else 0)


def from_git_line(line: bytes) -> bytes | None:
    """Return the name that both sides of the rest of a ``diff --git`` line agree on, or None.

    Without quotes nothing says where the first name ends: only a name that stands there twice is one.
    """
    if line.startswith(b'"'):
        return _from_quoted(line)
    if b'"' in line:
        before, quote, after = line.partition(b'"')
        second = unquoted(quote + after)
        first = before[:-1]
        return _agreed(first, second[0]) if second and before.endswith((b" ", b"\t")) else None
    if len(line) > 2 * LONGEST:
        return None
    start = line.find(b"/") + 1
    if start < 2:
        return None
    for blank in re.finditer(rb"[ \t]", line[start:]):
        name, behind = line[start : start + blank.start()], start + blank.end()
        slash = line.find(b"/", behind)
        # A slash right behind the blank would be an absolute path: the blank is part of a name.
        if slash > behind and line[slash + 1 :] == name:
            return name
    return None


def _from_quoted(line: bytes) -> bytes | None:
    found = unquoted(line)
    if not found:
        return None
    first, rest = found
    second = rest.lstrip()
    if second.startswith(b'"'):
        other = unquoted(second)
        return _agreed(first, other[0]) if other else None
    return _agreed(first, second) if second else None


def _agreed(first: bytes, second: bytes) -> bytes | None:
    """The name below both prefixes, when it is the same and neither is absolute."""
    names = [name.partition(b"/") for name in (first, second)]
    one, two = (rest if before and slash else None for before, slash, rest in names)
    return one if one is not None and one == two else None
