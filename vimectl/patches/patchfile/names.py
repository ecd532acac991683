"""Decode file names as diffs write them (C quoting, ``a/`` and ``b/``, time stamps) and check paths."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

# A ``diff --git`` line with more blanks in its first name states no name.
_MOST_BLANKS = 200
_QUOTED = re.compile(rb'"((?:[^"\\]|\\[abtnvfr"\\]|\\[0-3][0-7]{2})*)"')
# Time stamps of GNU diff and POSIX, after a tab or blanks. A name before one may have tabs.
_STAMP = re.compile(rb"(?:\t| +)(?:\d\d)?\d\d-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?(?: [-+]\d\d:?\d\d)?$")
_EPOCH = re.compile(rb"\t(1969-12-31|1970-01-01) (\d\d):(\d\d):00(?:\.0+)? ([-+])(\d\d):?(\d\d)$")
# Characters that a file system may ignore in a name, so that another name means .git.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class PathProblem(NamedTuple):
    """The rule that a path breaks, and a predicate that completes a sentence starting with the path."""

    rule: str
    what: str


def path_problem(path: str) -> PathProblem | None:
    """Return why a patch may not name this path, or None.

    Allowed are relative paths below the target, except those into ``.git`` and ``.vimectl``.
    """
    parts = path.split("/")
    if path.startswith("/"):
        return PathProblem("absolute-path", "is an absolute path")
    if ".." in parts:
        return PathProblem("outside-path", "leads out of the target with '..'")
    if "" in parts or "." in parts:
        return PathProblem("outside-path", "has an empty folder or '.' in it")
    for part in parts:
        # Windows and macOS take these for .git as well, and a target may be mounted there.
        plain = _IGNORED.sub("", part).lower().partition(":")[0].rstrip(". ")
        if plain in (".git", "git~1"):
            return PathProblem("git-path", "is in .git")
        if plain == ".vimectl":
            return PathProblem("git-path", "is in .vimectl, this tool's own folder")
    return PathProblem("outside-path", "has a control character in it") if CONTROL.search(path) else None


def parent_folders(path: str) -> Iterator[str]:
    """Yield the folders of a path, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def printable(message: str) -> str:
    """Escape characters that a terminal would interpret or that cannot be written to it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message)


def is_null(line: bytes) -> bool:
    """Return True if the rest of a ``---`` or ``+++`` line is ``/dev/null``: no file in this version."""
    return re.match(rb"/dev/null(?:[ \t\r]|$)", line) is not None


def strip_folders(name: bytes, strip: int) -> bytes | None:
    """Return a name without its first folders (``a/``), or None when nothing is left or there are fewer."""
    parts = name.split(b"/", strip)
    return re.sub(rb"/{2,}", b"/", parts[strip]) or None if len(parts) > strip else None


def written_name(line: bytes, *, plain_diff: bool = False, rename: bool = False) -> bytes:
    """Return the name on the rest of a ``---`` or ``+++`` line, prefix included.

    ``plain_diff``: a diff without git's headers, where blanks may separate a time stamp. ``rename``: the
    line of a rename or copy, where a tab is part of the name.
    """
    if found := _QUOTED.match(line):
        return _unescape(found)
    if plain_diff and (stamp := _STAMP.search(line)):
        return line[: stamp.start()]
    return re.split(rb"[\r\v\f]" if rename else rb"[\t\r\v\f]", line, maxsplit=1)[0]


def plain_diff_name(old: bytes, new: bytes, strip: int) -> bytes | None:
    """Return the file that the ``---`` and ``+++`` lines of a diff without git's headers are about.

    That is the shorter name when the other only adds a suffix to it (``x.orig``, ``x~``), else the new one.
    """
    # If one is /dev/null, the other one has the name.
    lines = (new if is_null(old) else old, old if is_null(new) else new)
    one, two = (strip_folders(written_name(line, plain_diff=True), strip) for line in lines)
    if two is None or (one is not None and len(one) < len(two) and two.startswith(one)):
        return one
    return two


def is_epoch(line: bytes) -> bool:
    """Return True if a name has the time stamp by which GNU diff marks a file that does not exist."""
    found = _EPOCH.search(line)
    if not found:
        return False
    day, hour, minute, sign, zone_hour, zone_minute = found.groups()
    zone = (int(zone_hour) * 60 + int(zone_minute)) * (-1 if sign == b"-" else 1)
    return int(hour) * 60 + int(minute) - zone == (24 * 60 if day.startswith(b"1969") else 0)


def from_git_line(line: bytes, strip: int) -> bytes | None:
    """Return the name that both halves of the rest of a ``diff --git`` line agree on, or None.

    Any blank may be the one between them, so that the name must occur twice.
    """
    for blank in islice(re.finditer(rb"[ \t]", line), _MOST_BLANKS):
        first, second = line[: blank.start()], line[blank.end() :]
        if quoted := _QUOTED.fullmatch(first):
            first, second = _unescape(quoted), second.lstrip()
        if quoted := _QUOTED.match(second):  # git ignores what follows, such as a carriage return
            second = _unescape(quoted)
        name, other = (half.split(b"/", strip)[strip:] for half in (first, second))
        if name == other and any(name) and not first.startswith(b"/") and not second.startswith(b"/"):
            return name[0]
    return None


def _unescape(quoted: re.Match[bytes]) -> bytes:
    return quoted[1].decode("unicode_escape").encode("latin-1")
