"""Port what one patch does to one file from the release it was made for to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from vimectl.patches.git_commands import FileMerge, merge_file
from vimectl.patches.port import auto_resolve
from vimectl.patches.port.changes import Change, apply_changes, is_in_release, line_offset

# Returns the path of another file of the new release that has any of these lines, or None.
FindLines = Callable[[list[bytes]], "str | None"]
# Ordered by severity: the result of a patch is the most severe one of its files.
PortResult = Literal["upstream", "clean", "offset", "conflict"]
RESULTS: tuple[PortResult, ...] = ("upstream", "clean", "offset", "conflict")
HunkPortResult = Literal["upstream", "gone", "clean", "offset", "conflict"]
# The results of hunks that are not in the new patch.
LEFT_OUT = ("upstream", "gone")
DEFAULT_MODE = "100644"


@dataclass(frozen=True)
class HunkPort:
    """One hunk. ``line`` is its line in the old release, ``moved`` how many lines further down it is now.

    ``gone``: it only adds to lines that the new release removed. ``note`` explains a conflict.
    """

    line: int
    result: HunkPortResult
    moved: int = 0
    note: str = ""


@dataclass(frozen=True)
class FilePort:
    """One file of a patch: content before and after it in the new release (None: no such file).

    With ``conflict``, ``after`` is for the user to edit: the merge with git's markers, if there is one.
    ``modes`` are git's, before and after.
    """

    path: str
    result: PortResult
    before: bytes | None
    after: bytes | None
    note: str = ""
    hunks: tuple[HunkPort, ...] = ()
    modes: tuple[str, str] = (DEFAULT_MODE, DEFAULT_MODE)


class MergeLabels(NamedTuple):
    """The names of the three versions in conflict markers, in the order of `merge_file`."""

    old: str
    new: str
    patch: str


def port_file(
    path: str,
    base: bytes | None,
    patched: bytes | None,
    release: bytes | None,
    hunks: list[Change],
    labels: MergeLabels,
    find_lines: FindLines,
) -> FilePort:
    """Port a patch of a file.

    Args:
        base, patched: the file in the old release before and after the patch.
        release: the file in the new release, with the previous patches.
        hunks: the changes of the patch, for ``base``.
        find_lines: searches lines in other files of the new release.
    """
    if patched == release:
        return FilePort(path, "upstream", release, release, f"{labels.new} has it")
    if base is None or patched is None or release is None:
        return _port_missing(path, base, patched, release, labels)
    merge = _merge(base, patched, release, labels)
    if merge.conflicts is None:
        return FilePort(path, "conflict", release, release, "it is not text: git cannot merge it")
    ports = [_port_hunk(hunk, base, release, labels) for hunk in hunks]
    if merge.clean:
        ports = [replace(port, result="offset") if port.result == "conflict" else port for port in ports]
    else:
        pairs = list(zip(hunks, ports, strict=True))
        ports = [_explain_conflict(port, hunk, base, release, labels, find_lines) for hunk, port in pairs]
        kept = [hunk for hunk, port in zip(hunks, ports, strict=True) if port.result not in LEFT_OUT]
        merge = _merge(base, apply_changes(base, kept), release, labels)
    if merge.clean:
        upstream = merge.content == release
        in_place = all(port.result == "clean" for port in ports)
        result: PortResult = "upstream" if upstream else "clean" if in_place else "offset"
        note = _left_out(ports, labels, upstream)
        return FilePort(path, result, release, merge.content, note, tuple(ports))
    places = "1 place" if merge.conflicts == 1 else f"{merge.conflicts} places"
    line = auto_resolve.first_marker(merge.content or b"")
    note = f"{places} where both changed the same lines, marked from line {line} on"
    note = "; ".join([note, *(port.note for port in ports if port.note)])
    if not any(port.result == "conflict" for port in ports):
        # Hunks that merge alone conflict with each other.
        ports = [replace(port, result="conflict") for port in ports]
    return FilePort(path, "conflict", release, merge.content, note, tuple(ports))


def _port_hunk(hunk: Change, base: bytes, release: bytes, labels: MergeLabels) -> HunkPort:
    """Port one hunk as if it were the whole patch, by merging alone."""
    patched = apply_changes(base, [hunk])
    merge = _merge(base, patched, release, labels)
    if not merge.clean or merge.content is None:
        return HunkPort(hunk.line, "conflict")
    if merge.content == release:
        return HunkPort(hunk.line, "upstream")
    in_place = apply_changes(release, [hunk]) == merge.content and hunk.fits(release)
    moved = line_offset(base, patched, release, merge.content)
    return HunkPort(hunk.line, "clean" if in_place else "offset", moved)


def _explain_conflict(
    port: HunkPort, hunk: Change, base: bytes, release: bytes, labels: MergeLabels, find_lines: FindLines
) -> HunkPort:
    """Return the port of a hunk with a conflict as upstream or obsolete if it is that, otherwise as it is."""
    if port.result != "conflict":
        return port
    if is_in_release(hunk, base, release):
        return replace(port, result="upstream")
    merge = _merge(base, apply_changes(base, [hunk]), release, labels)
    if not auto_resolve.is_obsolete(hunk, merge, release):
        return port
    other = find_lines(auto_resolve.telling_lines(hunk))
    if other:
        return replace(port, note=f"what was changed at line {hunk.line} is in {other} now")
    return replace(port, result="gone")


def _port_missing(
    path: str, base: bytes | None, patched: bytes | None, release: bytes | None, labels: MergeLabels
) -> FilePort:
    """Port a patch that creates or deletes the file, or whose file the new release does not have."""
    if base == release:
        return FilePort(path, "clean", release, patched)
    if release is None:
        return FilePort(path, "conflict", None, None, f"{labels.new} does not have this file")
    merge = _merge(base or b"", patched or b"", release, labels)
    created = f"{labels.new} has such a file too"
    note = created if base is None else f"the patch deletes it, {labels.new} changed it"
    return FilePort(path, "conflict", release, merge.content, note)


def _merge(base: bytes, patched: bytes, release: bytes, labels: MergeLabels) -> FileMerge:
    return auto_resolve.join_imports(merge_file(base, release, patched, labels))


def _left_out(ports: list[HunkPort], labels: MergeLabels, upstream: bool) -> str:
    """Return which hunks are left out, and why."""
    if upstream and not any(port.result == "gone" for port in ports):
        return f"{labels.new} has it"
    notes = []
    for result, what in (("upstream", "has"), ("gone", "no longer has")):
        lines = [str(port.line) for port in ports if port.result == result]
        if lines:
            notes.append(f"{labels.new} {what} what was changed at line {', '.join(lines)}")
    return "; ".join(notes)
