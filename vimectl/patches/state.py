"""Classify the state of a target by content: blob id and mode of every file of its series."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from vimectl.patches import applied_state
from vimectl.patches.applied_state import AppliedSeries
from vimectl.patches.blobs import LINK, NO_FILE, FileId, blob_id
from vimectl.patches.series import Patch, Series
from vimectl.patches.target import PatchTarget, TargetFiles
from vimectl.patches.transaction_journal import Unfinished, find_unfinished

FileState = Literal["applied", "not-applied", "merged", "upstream", "outdated", "drifted"]
PatchState = Literal["applied", "not-applied", "upstream", "partial", "drifted"]
TargetState = Literal["pristine", "applied", "partial", "drifted", "unsupported"]


class PatchStatus(NamedTuple):
    """One patch in a target, with the states of its files as (path, state).

    ``merged``: exactly the result of `apply --merge` with a user's edits; counts as applied.
    ``upstream``: unknown content without a recorded apply that already has every hunk of the patch.
    ``outdated``: as the patches that were applied before left it.
    """

    id: str
    state: PatchState
    files: tuple[tuple[str, FileState], ...]


class TargetStatus(NamedTuple):
    """A package in a target compared with its series; ``series`` is None when none fits its version.

    ``note`` says why a series fits a version that it does not name, or why none fits, and then ``hint`` what
    to do.
    ``found`` has the id of each file of the series, ``blockers`` why some of them cannot be written.
    ``applied`` is what the bookkeeping records. ``leftover`` are files that patches changed which the series
    does not have any more. ``unfinished`` is what an interrupted command left.
    """

    target: PatchTarget
    series: Series | None
    state: TargetState
    note: str = ""
    hint: str = ""
    patches: tuple[PatchStatus, ...] = ()
    found: Mapping[str, FileId] = {}
    blockers: Mapping[str, str] = {}
    applied: AppliedSeries | None = None
    leftover: tuple[str, ...] = ()
    unfinished: Unfinished | None = None

    @property
    def complete(self) -> bool:
        """Return True if every patch is applied and no command was interrupted."""
        return self.state == "applied" and self.unfinished is None

    @property
    def drifted(self) -> list[str]:
        """Return the files that are neither as released nor as any apply left them."""
        return self.files_in("drifted")

    def files_in(self, state: FileState) -> list[str]:
        """Return the files that are in this state for one of the patches, sorted."""
        return sorted(
            {path for patch in self.patches for path, file_state in patch.files if file_state == state}
        )

    def applied_ids(self) -> list[tuple[str, str]]:
        """Return id and blob id of the patches in the target, bottom first."""
        if self.applied and self.state != "pristine":
            return list(self.applied.patches)
        if self.series is None or self.state == "pristine":
            return []
        there = {patch.id for patch in self.patches if patch.state in ("applied", "upstream")}
        return [(patch.id, blob_id(patch.text)) for patch in self.series.patches if patch.id in there]

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch status --json` prints for the target."""
        return {
            "package": self.target.package,
            "version": self.target.version,
            "location": str(self.target.location),
            "kind": self.target.kind,
            "series": self.series.name if self.series else None,
            "state": self.state,
            "note": self.note,
            "hint": self.hint,
            "recorded": self.applied is not None,
            "unfinished": self.unfinished._asdict() if self.unfinished else None,
            "patches": [
                {"id": p.id, "state": p.state, "files": [{"path": f, "state": s} for f, s in p.files]}
                for p in self.patches
            ],
        }


def classify(target: PatchTarget, series: Series | None, note: str = "", hint: str = "") -> TargetStatus:
    """Compare the files of a target with a series. Reads no other files of the package.

    Raises UsageError when the bookkeeping, or the wheel that the target is, is damaged, or when links of the
    series lead out through links of the target.
    """
    if series is None:
        unfinished = find_unfinished(target.location)
        return TargetStatus(target, None, "unsupported", note, hint, unfinished=unfinished)
    with TargetFiles(target.location) as files:
        return _classify(target, files, series, note, hint)


def _classify(target: PatchTarget, files: TargetFiles, series: Series, note: str, hint: str) -> TargetStatus:
    unfinished = find_unfinished(target.location)
    series.checked(files.link)
    applied = applied_state.read(target.location).get(target.package)
    found, blockers = _find_files(files, series)

    def file_state(patch: Patch, path: str) -> FileState:
        position = series.position(path, found[path])
        if path in blockers:
            return "drifted"
        if position is not None:
            return "applied" if position > series.touching(path).index(patch) else "not-applied"
        chain = series.chains[path]
        if applied is None or path not in applied.series.chains:
            from vimectl.patches import content  # applying patches is needed only for unknown content

            has = content.has_changes_of(patch, path, files.read(path))
            return "upstream" if has else "drifted"
        recorded = applied.series.chains[path]
        if path in applied.merged:
            known = recorded[-1] == chain[-1] and applied.merged[path].after == found[path].blob
            return "merged" if known else "drifted"
        outdated = recorded[0] == chain[0] and applied.position(path, found[path])
        return "outdated" if outdated else "drifted"

    patches = []
    for patch in series.patches:
        states = tuple((path, file_state(patch, path)) for path in patch.files)
        patches.append(PatchStatus(patch.id, _patch_state({state for _, state in states}), states))
    leftover = tuple(_leftover(files, series, applied)) if applied else ()
    state = _target_state({patch.state for patch in patches})
    if leftover and state != "drifted":
        state = "partial"
    return TargetStatus(
        target, series, state, note, hint, tuple(patches), found, blockers, applied, leftover, unfinished
    )


def _leftover(files: TargetFiles, series: Series, applied: AppliedSeries) -> Iterable[str]:
    if list(applied.patches) == [(patch.id, blob_id(patch.text)) for patch in series.patches]:
        return
    for path in applied.series.chains:
        if path not in series.chains and applied.position(path, files.id(path)):
            yield path


def _find_files(files: TargetFiles, series: Series) -> tuple[dict[str, FileId], dict[str, str]]:
    found, blockers = {}, {}
    for path in series.chains:
        blocker = files.write_blocker(path)
        found[path] = NO_FILE if blocker else files.id(path)
        if found[path].mode == LINK and series.position(path, found[path]) is None:
            blocker = f"it is a symbolic link, to {os.fsdecode(files.read(path) or b'')}"
        if blocker:
            blockers[path] = blocker
    return found, blockers


def _patch_state(states: Iterable[FileState]) -> PatchState:
    states = set(states)
    if "drifted" in states:
        return "drifted"
    if states == {"upstream"}:
        return "upstream"
    if states <= {"applied", "merged", "upstream"}:
        return "applied"
    return "not-applied" if states == {"not-applied"} else "partial"


def _target_state(states: Iterable[PatchState]) -> TargetState:
    # A patch that upstream already has is neither applied by vimectl nor missing.
    states = set(states) - {"upstream"}
    if "drifted" in states:
        return "drifted"
    if states <= {"applied"}:
        return "applied"
    return "pristine" if states == {"not-applied"} else "partial"
