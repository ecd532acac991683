"""Port what one patch does to one file from the release it was made for to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from vimectl.patches.git_commands import FileMerge, merge_file
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.port import auto_resolve
from vimectl.patches.port.changes import LineChange, apply_changes, is_in_release, same_lines
from vimectl.patches.restack import with_mode

# Returns the path of another file of the new release that has any of these lines, or None.
FindLines = Callable[[list[bytes]], "str | None"]
# Ordered by severity: the result of a patch is the most severe one of its files.
PortResult = Literal["upstream", "clean", "offset", "conflict"]
RESULTS: tuple[PortResult, ...] = ("upstream", "clean", "offset", "conflict")
HunkPortResult = Literal["upstream", "gone", "clean", "offset", "conflict"]
# The results of hunks that are not in the new patch.
LEFT_OUT = ("upstream", "gone")


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
    """One file of a patch, before and after it in the new release (None: no such file).

    With ``conflict``, ``after`` is for the user to edit: the merge with git's markers, if there is one.
    """

    path: str
    result: PortResult
    before: GitFile | None
    after: GitFile | None
    note: str = ""
    hunks: tuple[HunkPort, ...] = ()


class MergeLabels(NamedTuple):
    """The names of the three versions in conflict markers, in the order of `merge_file`."""

    old: str
    new: str
    patch: str


def port_file(
    path: str,
    base: GitFile | None,
    patched: GitFile | None,
    release: GitFile | None,
    hunks: Sequence[LineChange],
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

    def ported(merge: FileMerge, in_place: bool, note: str, ports: Sequence[HunkPort] = ()) -> FilePort:
        after = with_mode(merge.content, base, release, patched)
        changed: PortResult = "clean" if in_place else "offset"
        result: PortResult = "conflict" if not merge.clean else "upstream" if after == release else changed
        return FilePort(path, result, release, after, note, tuple(ports))

    old, wanted, new = (file.content if file else None for file in (base, patched, release))
    if wanted == new or (wanted == old and release):  # at most the mode changes
        port = ported(FileMerge(new, 0), True, "")
        return replace(port, note=f"{labels.new} has it") if port.result == "upstream" else port
    if old is None or wanted is None or new is None:
        if old == new:
            return ported(FileMerge(wanted, 0), True, "")
        if new is None:
            return ported(FileMerge(None, None), False, f"{labels.new} does not have this file")
        merge = _merge(old or b"", wanted or b"", new, labels)
        created = f"{labels.new} has such a file too"
        note = created if old is None else f"the patch deletes it, {labels.new} changed it"
        return ported(merge._replace(conflicts=None), False, note)
    merge = _merge(old, wanted, new, labels)
    if merge.conflicts is None:
        return ported(merge, False, "it is not text: git cannot merge it")
    ports = [_port_hunk(hunk, old, new, labels, None if merge.clean else find_lines) for hunk in hunks]
    if not merge.clean:
        kept = [hunk for hunk, port in zip(hunks, ports, strict=True) if port.result not in LEFT_OUT]
        merge = _merge(old, apply_changes(old, kept), new, labels)
    if merge.clean:
        in_place = all(port.result == "clean" for port in ports)
        return ported(merge, in_place, _left_out(ports, labels, merge.content == new), ports)
    if not any(port.result == "conflict" for port in ports):
        # Hunks that merge alone conflict with each other.
        ports = [replace(port, result="conflict") for port in ports]
    places = "1 place" if merge.conflicts == 1 else f"{merge.conflicts} places"
    line = auto_resolve.first_marker(merge.content or b"")
    note = f"{places} where both changed the same lines, marked from line {line} on"
    return ported(merge, False, "; ".join([note, *(port.note for port in ports if port.note)]), ports)


def _port_hunk(
    hunk: LineChange, base: bytes, release: bytes, labels: MergeLabels, find_lines: FindLines | None
) -> HunkPort:
    """Port one hunk as if it were the whole patch. Without ``find_lines`` the whole patch merges cleanly."""
    patched = apply_changes(base, [hunk])
    merge = _merge(base, patched, release, labels)
    if merge.clean:
        new = merge.content or b""
        if new == release:
            return HunkPort(hunk.line, "upstream")
        in_place = hunk.fits(release) and apply_changes(release, [hunk]) == new
        moved = same_lines(release, new) - same_lines(base, patched)
        return HunkPort(hunk.line, "clean" if in_place else "offset", moved)
    if find_lines is None:
        return HunkPort(hunk.line, "offset")
    if is_in_release(hunk, base, release):
        return HunkPort(hunk.line, "upstream")
    if not auto_resolve.is_obsolete(hunk, merge, release):
        return HunkPort(hunk.line, "conflict")
    other = find_lines(auto_resolve.telling_lines(hunk))
    note = f"what was changed at line {hunk.line} is in {other} now" if other else ""
    return HunkPort(hunk.line, "conflict" if other else "gone", note=note)


def _merge(base: bytes, patched: bytes, release: bytes, labels: MergeLabels) -> FileMerge:
    return auto_resolve.join_imports(merge_file(base, release, patched, labels))


def _left_out(ports: Sequence[HunkPort], labels: MergeLabels, upstream: bool) -> str:
    """Return which hunks are left out, and why."""
    if upstream and not any(port.result == "gone" for port in ports):
        return f"{labels.new} has it"
    notes = []
    for result, what in (("upstream", "has"), ("gone", "no longer has")):
        lines = [str(port.line) for port in ports if port.result == result]
        if lines:
            notes.append(f"{labels.new} {what} what was changed at line {', '.join(lines)}")
    return "; ".join(notes)
