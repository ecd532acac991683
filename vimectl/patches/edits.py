"""Show how the files of a target differ from its series, and merge a user's edits with the patches."""

from __future__ import annotations

import difflib
from io import BytesIO

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches import applied_state, content
from vimectl.patches.blobs import id_of
from vimectl.patches.port.auto_resolve import merge_with_imports
from vimectl.patches.state import TargetStatus
from vimectl.patches.target import read_file


def diff_from_release(status: TargetStatus) -> str:
    """Return the unified diff from the release to the current files; "" when pristine."""
    return "".join(_diff(status, path, to_nearest=False) for path in status.found)


def diff_of_edits(status: TargetStatus) -> str:
    """Return the unified diff of every drifted file from the nearest state of the series."""
    return "".join(_diff(status, path, to_nearest=True) for path in status.drifted)


def merge_edits(status: TargetStatus, path: str) -> tuple[bytes | None, bytes | None]:
    """Merge the edits of a drifted file with the released and with the patched file; return both results.

    The base is the state of the series that the file is nearest to, or the release if it is the result of
    an earlier merge. A revert after an apply restores the file from before byte for byte: the bookkeeping
    keeps it.

    Raises:
        CheckFailed: the edits and the patches change the same lines (the message shows both), or this
            machine has no copy of the release, or the file cannot be written. Nothing was changed.
        MissingRequirement: git is not installed.
    """
    assert status.series is not None
    if path in status.blockers:
        raise CheckFailed(f"{path} cannot be merged: {status.blockers[path]}", "put a file in its place")
    location = status.target.location
    current = read_file(location, path)
    released = content.released(status.target, status.series, path, status.applied)
    stages = content.stages(status.series, path, released)
    known = [*_applied_stages(status, path, released), *stages]
    # The state with the shortest diff; of several, the last one.
    base = min(reversed(known), key=lambda one: len(_unified("", one, current)))
    merged = status.applied.merged.get(path) if status.applied else None
    if merged and merged.after == id_of(current):
        current, base = applied_state.read_object(location, merged.before or ""), released
    return _merge(path, base, current, stages[0]), _merge(path, base, current, stages[-1])


def _applied_stages(status: TargetStatus, path: str, released: bytes | None) -> list[bytes | None]:
    """Return the contents of a file through the patches that were applied before, if they start as
    released."""
    chain = status.applied.series.chains.get(path) if status.applied else None
    if not chain or not status.applied or chain[0] != id_of(released):
        return []
    return content.stages(status.applied.series, path, released)


def _merge(path: str, base: bytes | None, current: bytes | None, wanted: bytes | None) -> bytes | None:
    labels = ("base", f"{path} as it is", f"{path} as wanted")
    merge = merge_with_imports(base, current, wanted, labels)
    if not merge.clean:
        raise CheckFailed(
            f"{path} cannot be merged, nothing was changed:\n{merge.shown}",
            "edit the file so that it no longer changes these lines, and try again",
        )
    return merge.content


def _diff(status: TargetStatus, path: str, to_nearest: bool) -> str:
    assert status.series is not None
    if path in status.blockers:
        return f"# {path}: {status.blockers[path]}\n"
    current = read_file(status.target.location, path)
    try:
        released = content.released(status.target, status.series, path, status.applied)
    except CheckFailed as e:
        return f"# {path}: its edits cannot be shown: {e.message}\n"
    known = [released]
    if to_nearest:
        known = [*_applied_stages(status, path, released), *content.stages(status.series, path, released)]
    text = min((_unified(path, one, current) for one in known), key=len)
    mode, modes = status.found[path].mode, status.series.modes[path]
    if mode is not None and modes[0] is not None and mode not in modes:
        text = f"# {path}: mode {mode} instead of {modes[-1]}\n{text}"
    return text


def _unified(path: str, old: bytes | None, new: bytes | None) -> str:
    names = ("/dev/null" if old is None else f"a/{path}", "/dev/null" if new is None else f"b/{path}")
    lines = difflib.unified_diff(_lines(old), _lines(new), *names)
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _lines(data: bytes | None) -> list[str]:
    # At line feeds only, as git: str.splitlines also splits at form feeds, which Python sources contain.
    return [line.decode("utf-8", "backslashreplace") for line in BytesIO(data or b"")]
