"""Compute the contents of a file as released and after each patch, and find copies of released contents.

Patches are applied without fuzz and without offset: only to the content whose blob id the series states. So
each hunk fits exactly at its line, or the patch file is wrong.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

from vime_runtime.spec.errors import CheckFailed, UsageError, VimeError

from vimectl.patches import applied_state
from vimectl.patches.blobs import blob_id, id_of
from vimectl.patches.patchfile import binary
from vimectl.patches.patchfile.file_diff import FileDiff
from vimectl.patches.series import Patch, Series
from vimectl.patches.target import PatchTarget, TargetFiles

if TYPE_CHECKING:
    from vimectl.patches.applied_state import AppliedSeries
    from vimectl.patches.release_files import ReleaseFiles


def released(
    target: PatchTarget, series: Series, path: str, applied: AppliedSeries | None = None
) -> bytes | None:
    """Return the content of ``path`` as released; None when the release does not have the file.

    It is computed from the current content if that is one of ``series`` or of the ``applied`` one; otherwise
    ``kept_copy`` returns it. Errors are those of ``kept_copy``.
    """
    with TargetFiles(target.location) as files:
        if files.write_blocker(path) is None:
            found = files.id(path)
            for one in (series, applied.series if applied else None):
                position = one.position(path, found) if one and path in one.chains else None
                if one and position is not None:
                    return rewind(one, path, files.read(path), position)
    return kept_copy(target, path, series.chains[path][0], series.version)


def rewind(series: Series, path: str, content: bytes | None, position: int) -> bytes | None:
    """Return a file without the first ``position`` patches that touch it.

    Raises UsageError when the result does not have the blob id in the series.
    """
    for patch in reversed(series.touching(path)[:position]):
        content = apply_diff(content, patch.diffs[path], reverse=True)
    return _checked(series, path, content, series.chains[path][0])


def kept_copy(target: PatchTarget, path: str, blob: str | None, version: str = "") -> bytes | None:
    """Return a copy of released content: the one that apply kept, git's in a work tree, or a download.

    It is downloaded from pip's sources, if there is a ``version``. Raises CheckFailed when there is none.
    """
    if blob is None:
        return None
    copy = applied_state.read_object(target.location, blob)
    if copy is None and target.kind in ("git", "editable"):
        from vimectl.patches.git_tree import read_blob  # loads subprocess, for work trees alone

        copy = read_blob(target.location, blob)
    reason = ""
    if copy is None and version:
        try:
            copy = release(target.package, version, compared=True).read(path)
        except VimeError as e:
            reason = f"; {e.message}"
    if copy is None or blob_id(copy) != blob:
        raise CheckFailed(
            f"no copy of {path} as released ({blob}) is here{reason}", f"reinstall {target.package}"
        )
    return copy


@cache
def release(package: str, version: str, compared: bool = False) -> ReleaseFiles:
    """Open a release from pip's sources, once per process; see ``release_finder.find``."""
    from vimectl.patches import release_finder
    from vimectl.util.phase_progress import show_phases

    with show_phases() as progress:
        return release_finder.find(package, version, progress, compared=compared)


def stages(series: Series, path: str, content: bytes | None) -> list[bytes | None]:
    """Return the contents of a file from ``content``, as released, through every patch that touches it.

    Raises UsageError when the result of a patch does not have the blob id in the series.
    """
    contents = [content]
    for patch, expected in zip(series.touching(path), series.chains[path][1:], strict=True):
        content = apply_diff(content, patch.diffs[path])
        contents.append(_checked(series, path, content, expected))
    return contents


def has_changes_of(patch: Patch, path: str, content: bytes | None) -> bool:
    """Return True if ``content`` has the result of every hunk of the patch for ``path``.

    Each must be there with all its context, at any line, in the order of the hunks. This recognizes changes
    that upstream made itself.
    """
    diff = patch.diffs[path]
    if content is None or diff.action != "modify":
        return False
    lines = BytesIO(content).readlines()
    start = 0
    for hunk in diff.hunks:
        wanted = hunk.new_lines()
        candidates = range(start, len(lines) - len(wanted) + 1) if wanted else ()
        found = next((n for n in candidates if lines[n : n + len(wanted)] == wanted), None)
        if found is None:
            return False
        start = found + len(wanted)
    return bool(diff.hunks)


def apply_diff(content: bytes | None, diff: FileDiff, *, reverse: bool = False) -> bytes | None:
    """Return ``content`` with every hunk of ``diff`` applied. None is a file that does not exist.

    Raises UsageError when a hunk does not fit at its line.
    """
    removed = (diff.old_path if reverse else diff.new_path) is None
    if diff.binary is not None:
        return None if removed else _apply_binary(content, diff, reverse)
    lines = BytesIO(content or b"").readlines()
    result: list[bytes] = []
    done = 0
    for hunk in diff.hunks:
        if reverse:
            hunk = hunk.reversed()
        old, new = hunk.old_lines(), hunk.new_lines()
        if hunk.begin < done or lines[hunk.begin : hunk.begin + len(old)] != old:
            raise UsageError(f"{diff.path}: the hunk for line {hunk.old_start} does not fit")
        result += lines[done : hunk.begin] + new
        done = hunk.begin + len(old)
    return None if removed else b"".join(result + lines[done:])


def _apply_binary(content: bytes | None, diff: FileDiff, reverse: bool) -> bytes:
    halves = diff.binary or ()
    if len(halves) <= reverse:
        raise UsageError(f"{diff.path}: the {'reverse' if reverse else 'forward'} binary data is missing")
    try:
        return binary.apply_binary(content or b"", halves[reverse])
    except binary.CorruptBinary as e:
        raise UsageError(f"{diff.path}: {e}") from e


def _checked(series: Series, path: str, content: bytes | None, expected: str | None) -> bytes | None:
    if id_of(content) != expected:
        raise UsageError(f"{series.name}: {path} does not become {expected}", "the series is damaged")
    return content
