"""Port what one patch does to one file from the release it was made for to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vime_runtime.spec.errors import UsageError

from vimectl.patches.content import apply_diff
from vimectl.patches.git_commands import FileMerge, merge_file
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.patchfile.file_diff import FileDiff
from vimectl.patches.port.auto_resolve import first_marker, merge_with_imports
from vimectl.patches.port.changes import LineChange, apply_changes, is_in_release, obsolete_lines, split
from vimectl.patches.restack import with_mode

# Ordered by severity: the result of a patch is the most severe one of its files.
PortResult = Literal["upstream", "clean", "offset", "conflict"]
_RESULTS: tuple[PortResult, ...] = ("upstream", "clean", "offset", "conflict")
# Returns the path of another file of the new release that has any of these lines, or None.
FindLines = Callable[[list[bytes]], "str | None"]


@dataclass(frozen=True)
class FilePort:
    """One file of a patch, before and after it in the new release (None: no such file).

    With ``conflict``, ``after`` is for the user to edit: the merge with git's markers, if there is one.
    ``note`` explains a conflict, or names the changes that are left out.
    """

    path: str
    result: PortResult
    before: GitFile | None
    after: GitFile | None
    note: str = ""


@dataclass(frozen=True)
class PatchPort:
    """One patch. ``left_out`` is the reason why it is not in the new series; empty when it is."""

    id: str
    files: tuple[FilePort, ...]
    left_out: str = ""

    @property
    def result(self) -> PortResult:
        """Return the most severe result of its files, or ``upstream`` without files."""
        return max((file.result for file in self.files), key=_RESULTS.index, default="upstream")

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch port --json` prints for the patch."""
        files = [{"path": file.path, "result": file.result, "note": file.note} for file in self.files]
        return {"id": self.id, "result": self.result, "reason": self.left_out, "files": files}


def port_file(
    path: str,
    diff: FileDiff,
    base: GitFile | None,
    patched: GitFile | None,
    release: GitFile | None,
    labels: tuple[str, str, str],
    find_lines: FindLines,
) -> FilePort:
    """Port a patch of a file.

    Args:
        diff: the patch, which leads from ``base`` to ``patched``, the file in the old release.
        release: the file in the new release, with the previous patches.
        labels: the names of the old release, the new one and the patch in conflict markers.
    """
    old, wanted, new = (file.content if file else None for file in (base, patched, release))
    if new is None and base and patched:
        return FilePort(path, "conflict", None, None, f"{labels[1]} does not have this file")
    merge, note = merge_with_imports(old, new, wanted, labels), ""
    if merge.conflicts is None and None in (old, wanted):
        # The markers show the whole file.
        note, merge = merge.error, merge_file(old or b"", new, wanted or b"", labels)._replace(conflicts=None)
    elif merge.conflicts is None:
        note = "it is not text: git cannot merge it"
    elif old is not None and wanted is not None and new is not None and diff.hunks:
        merge, note = _merge_changes(diff, merge, old, new, labels, find_lines)
    after = with_mode(merge.content, base, release, patched)
    if not merge.clean:
        return FilePort(path, "conflict", release, after, note)
    if after == release:
        return FilePort(path, "upstream", release, after, note or f"{labels[1]} has it")
    in_place = _apply_in_place(new, diff) == merge.content
    return FilePort(path, "clean" if in_place else "offset", release, after, note)


def _merge_changes(
    diff: FileDiff,
    merge: FileMerge,
    old: bytes,
    new: bytes,
    labels: tuple[str, str, str],
    find_lines: FindLines,
) -> tuple[FileMerge, str]:
    """Return the merge of the changes that the new release needs, and a note on the others.

    ``merge`` is that of all changes; if it is clean, it stays as it is.
    """
    needed: list[LineChange] = []
    left_out: dict[str, list[str]] = {"has": [], "no longer has": []}
    moved = []
    for change in split(diff):
        line = str(change.begin + 1)
        alone = merge_with_imports(old, new, apply_changes(old, [change]), labels)
        merged = merge.clean or alone.clean
        if alone.content == new or (not merged and is_in_release(change, old, new)):
            left_out["has"].append(line)
        elif merged or not (gone := obsolete_lines(change, alone, new)):
            needed.append(change)
        elif other := find_lines(gone):
            needed.append(change)
            moved.append(f"what was changed at line {line} is in {other} now")
        else:
            left_out["no longer has"].append(line)
    if not merge.clean:
        merge = merge_with_imports(old, new, apply_changes(old, needed), labels)
    if not merge.clean:
        places = "1 place" if merge.conflicts == 1 else f"{merge.conflicts} places"
        start = first_marker(merge.content or b"")
        both = f"{places} where both changed the same lines, marked from line {start} on"
        return merge, "; ".join([both, *moved])
    if merge.content == new and not left_out["no longer has"]:
        return merge, ""
    notes = [
        f"{labels[1]} {what} what was changed at line {', '.join(lines)}"
        for what, lines in left_out.items()
        if lines
    ]
    return merge, "; ".join(notes)


def _apply_in_place(content: bytes | None, diff: FileDiff) -> bytes | None:
    """Return the content with the diff applied exactly where it states, or unchanged if it does not fit."""
    try:
        return apply_diff(content, diff)
    except UsageError:
        return content
