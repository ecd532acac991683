"""Show in what a file of a target differs from what the series knows."""

from __future__ import annotations

import difflib

from vimectl.errors import CheckFailed
from vimectl.patching import content
from vimectl.patching.blobs import content_at
from vimectl.patching.state import TargetStatus


def from_release(status: TargetStatus) -> str:
    """Return the unified diff from the release to what is there: patches and edits; "" when pristine."""
    return "".join(_shown(status, path, nearest=False) for path in status.blobs)


def edits(status: TargetStatus) -> str:
    """Return the unified diff of every drifted file from the state of the series that it is nearest to."""
    return "".join(_shown(status, path, nearest=True) for path in status.drifted)


def _shown(status: TargetStatus, path: str, nearest: bool) -> str:
    assert status.series is not None
    current = content_at(status.target.location / path)
    try:
        released = content.released(status.target, status.series, path)
    except CheckFailed as e:
        return f"# {path}: its edits cannot be shown: {e.message}\n"
    known = content.stages(status.series, path, released) if nearest else [released]
    return min((_unified(path, one, current) for one in known), key=len)


def _unified(path: str, old: bytes | None, new: bytes | None) -> str:
    names = ("/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}")
    lines = difflib.unified_diff(_lines(old), _lines(new), *names)
    marked = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return "".join(marked)


def _lines(data: bytes | None) -> list[str]:
    return (data or b"").decode("utf-8", "backslashreplace").splitlines(keepends=True)
