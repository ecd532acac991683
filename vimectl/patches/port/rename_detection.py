"""Find the new path of a file that a release no longer has, by its name and content."""

from __future__ import annotations

from difflib import SequenceMatcher, get_close_matches
from io import BytesIO
from pathlib import PurePosixPath

from vimectl.patches.patchfile.names import path_problem
from vimectl.patches.release_files import ReleaseFiles

# At most this many files are read: each file of a wheel on a server is a request.
_MAX_CANDIDATES = 12
# The default threshold of git for a rename.
_MIN_SIMILARITY = 0.5
# The old and the new release.
Releases = tuple[ReleaseFiles, ReleaseFiles]


def find_renamed(path: str, content: bytes, releases: Releases) -> tuple[str, float] | None:
    """Return the new file that ``path`` most likely became, and its similarity, 0 to 1.

    Returns None when none is similar. Only files that the old release did not have are considered.
    """
    added = _added(path, releases)
    candidates = [(other, _similarity(content, releases[1].read(other) or b"")) for other in added]
    best = max(candidates, key=lambda candidate: candidate[1], default=None)
    return best if best and best[1] >= _MIN_SIMILARITY else None


def find_lines(path: str, releases: Releases, lines: list[bytes]) -> str | None:
    """Return a file of the new release that has any of these lines and had none in the old one, or None.

    Files in the folder of ``path`` and added files are searched.
    """
    old, new = releases
    folder = PurePosixPath(path).parent
    siblings = [other for other in _same_suffix(path, new) if PurePosixPath(other).parent == folder]
    for other in dict.fromkeys(siblings + _added(path, releases)):
        found = set(lines).intersection(BytesIO(new.read(other) or b""))
        if other != path and found.difference(BytesIO(old.read(other) or b"")):
            return other
    return None


def _added(path: str, releases: Releases) -> list[str]:
    """Return the files that only the new release has, those with the most similar paths first."""
    known = {path, *releases[0].paths()}
    added = [other for other in _same_suffix(path, releases[1]) if other not in known]
    return get_close_matches(path, added, _MAX_CANDIDATES, cutoff=0)


def _same_suffix(path: str, files: ReleaseFiles) -> list[str]:
    """Return the paths with the suffix of ``path`` that may be written to: an archive can contain others."""
    suffix = PurePosixPath(path).suffix
    return [p for p in files.paths() if PurePosixPath(p).suffix == suffix and path_problem(p) is None]


def _similarity(one: bytes, other: bytes) -> float:
    """Return the share of lines that two files have in common, in any order, without blank lines."""
    ours, theirs = ([line for line in BytesIO(data) if line.strip()] for data in (one, other))
    return SequenceMatcher(None, ours, theirs).quick_ratio()
