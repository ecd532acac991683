"""Merge three versions of a file by `git merge-file`, conflicts as git marks them."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vimectl.patches.git_diff import git

_MARKER = re.compile(rb"^(<{7}|\|{7}|>{7}) ", re.MULTILINE)


@dataclass(frozen=True)
class Merged:
    """What a merge came to. ``conflicts`` counts the marked places; None: git cannot merge such files."""

    content: bytes
    conflicts: int | None

    @property
    def clean(self) -> bool:
        return self.conflicts == 0


def merge(base: bytes, patched: bytes, release: bytes, labels: tuple[str, str, str]) -> Merged:
    """Merge what a patch does (``base`` to ``patched``) into ``release``.

    ``labels`` name base, patched and release in the markers. Content that git cannot merge (binary) comes
    back as the release has it. Raises MissingRequirement when there is no git.
    """
    if base in (patched, release):
        return Merged(release if base == patched else patched, 0)
    if patched == release:
        return Merged(release, 0)
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        for name, data in (("base", base), ("patched", patched), ("release", release)):
            Path(scratch, name).write_bytes(data)
        names = [word for label in (labels[2], labels[0], labels[1]) for word in ("-L", label)]
        status, merged, _ = git(Path(scratch)).execute(
            ["git", "merge-file", "-p", "--diff3", *names, "release", "base", "patched"],
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
        )
    # The number of conflicts, no more than 127; what is above says that git failed.
    return Merged(bytes(merged), int(status)) if 0 <= status < 128 else Merged(release, None)


def marked_line(content: bytes) -> int | None:
    """Return the number of the first line that is a conflict marker, or None."""
    found = _MARKER.search(content)
    return content.count(b"\n", 0, found.start()) + 1 if found else None
