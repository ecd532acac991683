"""Which paths a patch may name: below the target, and not what git or this tool keeps there."""

from __future__ import annotations

import re
from typing import NamedTuple

# Characters that a file system may ignore in a name, so that another name means .git.
_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Wrong(NamedTuple):
    """The rule that a path breaks, and ``what`` it does: the rest of a sentence that the path begins."""

    rule: str
    what: str


def wrong_path(path: str) -> Wrong | None:
    """Say what is wrong with a path; None: nothing."""
    parts = path.split("/")
    if path.startswith("/"):
        return Wrong("absolute-path", "is an absolute path")
    if ".." in parts:
        return Wrong("outside-path", "leads out of the target with '..'")
    if "" in parts or "." in parts:
        return Wrong("outside-path", "has an empty folder or '.' in it")
    for part in parts:
        # Windows and macOS take these for .git as well, and a target may be seen from there.
        plain = _IGNORED.sub("", part).lower().partition(":")[0].rstrip(". ")
        if plain in (".git", "git~1"):
            return Wrong("git-path", "lies in .git")
        if plain == ".vimectl":
            return Wrong("git-path", "lies in .vimectl, this tool's own folder")
    return Wrong("outside-path", "has a control character in it") if _CONTROL.search(path) else None
