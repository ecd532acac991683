"""Classify the state of a target by content: blob id and mode of every file of its series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from vimectl.patches import applied_state
from vimectl.patches.applied_state import AppliedFile, AppliedSeries
from vimectl.patches.blobs import LINK, NO_FILE, FileId
from vimectl.patches.series import Patch, Series
from vimectl.patches.target import PatchTarget, file_id, read_file, write_blocker

FileState = Literal["applied", "not-applied", "merged", "upstream", "outdated", "drifted"]
PatchState = Literal["applied", "not-applied", "upstream", "partial", "drifted"]
TargetState = Literal["pristine", "applied", "partial", "drifted", "unsupported"]


@dataclass(frozen=True)
class PatchStatus:
    """One patch in a target, with the states of its files as (path, state).

    ``merged``: exactly the result of `apply --merge` with a user's edits; counts as applied.
    ``upstream``: unknown content without a recorded apply that already has every hunk of the patch.
    ``outdated``: as an earlier revision of the series left it.
    """

    id: str
    state: PatchState
    files: tuple[tuple[str, FileState], ...]


@dataclass(frozen=True)
class TargetStatus:
    """A package in a target compared with its series; ``series`` is None when its version has none.

    ``found`` has the id of each file of the series, ``blockers`` why some of them cannot be written.
    ``applied`` is what the bookkeeping records. ``leftover`` are files that an earlier revision of the
    series patched and this one does not touch.
    """

    target: PatchTarget
    series: Series | None
    state: TargetState
    patches: tuple[PatchStatus, ...] = ()
    found: dict[str, FileId] = field(default_factory=dict)
    blockers: dict[str, str] = field(default_factory=dict)
    applied: AppliedSeries | None = None
    leftover: tuple[AppliedFile, ...] = ()

    @property
    def drifted(self) -> list[str]:
        """Return the files that are neither as released nor as any apply left them."""
        return self.files_in("drifted")

    def files_in(self, state: FileState) -> list[str]:
        """Return the files that are in this state for one of the patches, sorted."""
        return sorted(
            {path for patch in self.patches for path, file_state in patch.files if file_state == state}
        )

    def applied_file(self, path: str) -> AppliedFile | None:
        """Return the bookkeeping entry of a file, or None."""
        return self.applied.file(path) if self.applied else None

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch status --json` prints for the target."""
        return {
            "package": self.target.package,
            "version": self.target.version,
            "location": str(self.target.location),
            "kind": self.target.kind,
            "series": self.series.name if self.series else None,
            "state": self.state,
            "patches": [
                {"id": p.id, "state": p.state, "files": [{"path": f, "state": s} for f, s in p.files]}
                for p in self.patches
            ],
        }


def classify(target: PatchTarget, series: Series | None) -> TargetStatus:
    """Compare the files of a target with a series. Reads no other files of the package.

    Raises UsageError when the bookkeeping, or the wheel that the target is, is damaged.
    """
    if series is None:
        return TargetStatus(target, None, "unsupported")
    location = target.location
    applied = applied_state.read(location).get(target.package)
    found, blockers = _find_files(target, series)

    def file_state(patch: Patch, path: str) -> FileState:
        position = series.position(path, found[path])
        if path in blockers:
            return "drifted"
        if position is not None:
            return "applied" if position > series.touching(path).index(patch) else "not-applied"
        recorded = applied.file(path) if applied else None
        if recorded is None:
            from vimectl.patches import content  # reading patches is needed only for unknown content

            has = content.has_changes_of(series, patch, path, read_file(location, path))
            return "upstream" if has else "drifted"
        if recorded.after != found[path].blob:
            return "drifted"
        if recorded.merged:
            return "merged" if recorded.merged == series.chains[path][-1] else "drifted"
        return "outdated"

    patches = []
    for patch in series.patch:
        files = tuple((file.path, file_state(patch, file.path)) for file in patch.files)
        patches.append(PatchStatus(patch.id, _patch_state({state for _, state in files}), files))
    leftover = tuple(
        file
        for file in (applied.files if applied else ())
        if file.path not in series.chains and file_id(location, file.path).blob == file.after
    )
    state = _target_state({patch.state for patch in patches})
    if leftover and state != "drifted":
        state = "partial"
    return TargetStatus(target, series, state, tuple(patches), found, blockers, applied, leftover)


def _find_files(target: PatchTarget, series: Series) -> tuple[dict[str, FileId], dict[str, str]]:
    found, blockers = {}, {}
    for path in series.chains:
        blocker = write_blocker(target.location, path)
        found[path] = NO_FILE if blocker else file_id(target.location, path)
        if found[path].mode == LINK and series.position(path, found[path]) is None:
            blocker = f"it is a symbolic link, to {(target.location / path).readlink()}"
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
