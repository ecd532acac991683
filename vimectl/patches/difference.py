"""Show in what a file of a target differs from what the series knows."""

from __future__ import annotations

import difflib
from io import BytesIO

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches import content, tree
from vimectl.patches.state import TargetStatus


def from_release(status: TargetStatus) -> str:
    """Return the unified diff from the release to what is there: patches and edits; "" when pristine."""
    return "".join(_shown(status, path, to_nearest=False) for path in status.found)


def edits(status: TargetStatus) -> str:
    """Return the unified diff of every drifted file from the state of the series that it is nearest to."""
    return "".join(_shown(status, path, to_nearest=True) for path in status.drifted)


def nearest(contents: list[bytes | None], current: bytes | None) -> bytes | None:
    """Return the one of ``contents`` from which the diff to ``current`` is shortest, the last of equals."""
    return min(reversed(contents), key=lambda one: len(_unified("", one, current)))


def _shown(status: TargetStatus, path: str, to_nearest: bool) -> str:
    assert status.series is not None
    if path in status.obstacles:
        return f"# {path}: {status.obstacles[path]}\n"
    current = tree.content(status.target.location, path)
    try:
        released = content.released(status.target, status.series, path)
    except CheckFailed as e:
        return f"# {path}: its edits cannot be shown: {e.message}\n"
    known = content.stages(status.series, path, released) if to_nearest else [released]
    shown = min((_unified(path, one, current) for one in known), key=len)
    return _mode(status, path) + shown


def _mode(status: TargetStatus, path: str) -> str:
    """Git's lines for a file whose mode is none that the series knows."""
    assert status.series is not None
    mode, known = status.found[path].mode, status.series.modes[path]
    if mode is None or known[0] is None or mode in known:
        return ""
    return f"# {path}: mode {mode} instead of {known[-1]}\n"


def _unified(path: str, old: bytes | None, new: bytes | None) -> str:
    names = ("/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}")
    lines = difflib.unified_diff(_lines(old), _lines(new), *names)
    marked = (line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return "".join(marked)


def _lines(data: bytes | None) -> list[str]:
    # At line feeds only, as git: str.splitlines would also split at form feeds, which Python sources have.
    return [line.decode("utf-8", "backslashreplace") for line in BytesIO(data or b"")]
