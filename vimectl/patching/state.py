"""Which state a target is in, judged by content alone: the git blob id of every file of the series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from vimectl.patching import ledger
from vimectl.patching.blobs import blob_at
from vimectl.patching.series import PatchedFile, Series
from vimectl.patching.target import Target

FileState = Literal["applied", "not-applied", "outdated", "drifted"]
PatchState = Literal["applied", "not-applied", "partial", "drifted"]
TargetState = Literal["pristine", "applied", "partial", "drifted", "unsupported"]


@dataclass(frozen=True)
class PatchStatus:
    """One patch in a target. ``files`` are (path, state), where ``outdated`` means that the file is as an
    earlier revision of the series left it."""

    id: str
    state: PatchState
    files: tuple[tuple[str, FileState], ...]


@dataclass(frozen=True)
class TargetStatus:
    """A package in a target against its series; ``series`` is None when this version has none.

    ``blobs`` is what was found: the blob id of every file of the series (None: no such file).
    ``leftover`` are files that an earlier revision of the series patched and this one does not touch.
    """

    target: Target
    series: Series | None
    state: TargetState
    patches: tuple[PatchStatus, ...] = ()
    blobs: dict[str, str | None] = field(default_factory=dict)
    leftover: tuple[PatchedFile, ...] = ()

    @property
    def drifted(self) -> list[str]:
        """The files that are neither as released nor as any revision of the series left them."""
        found = {path for patch in self.patches for path, state in patch.files if state == "drifted"}
        return sorted(found)

    def as_json(self) -> dict[str, Any]:
        """The target as `patch status --json` prints it."""
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


def judge(target: Target, series: Series | None) -> TargetStatus:
    """Compare the files of a target with a series. Reads the files and nothing else of the package."""
    if series is None:
        return TargetStatus(target, None, "unsupported")
    blobs = {path: blob_at(target.location / path) for path in series.chains}
    entry = ledger.read(target.location).get(target.package)
    left = {file.path: file for file in entry.files} if entry else {}

    def file_state(index: int, path: str) -> FileState:
        chain, blob = series.chains[path], blobs[path]
        if blob in chain:
            position = series.touching(path).index(series.patch[index]) + 1
            return "applied" if chain.index(blob) >= position else "not-applied"
        return "outdated" if path in left and left[path].after == blob else "drifted"

    patches = []
    for index, patch in enumerate(series.patch):
        files = tuple((file.path, file_state(index, file.path)) for file in patch.files)
        patches.append(PatchStatus(patch.id, _patch_state({state for _, state in files}), files))
    leftover = tuple(
        file
        for path, file in left.items()
        if path not in series.chains and blob_at(target.location / path) == file.after
    )
    state = _target_state({patch.state for patch in patches})
    if leftover and state != "drifted":
        state = "partial"
    return TargetStatus(target, series, state, tuple(patches), blobs, leftover)


def _patch_state(states: Iterable[FileState]) -> PatchState:
    states = set(states)
    if "drifted" in states:
        return "drifted"
    if states == {"applied"}:
        return "applied"
    return "not-applied" if states == {"not-applied"} else "partial"


def _target_state(states: Iterable[PatchState]) -> TargetState:
    states = set(states)
    if "drifted" in states:
        return "drifted"
    if states == {"applied"}:
        return "applied"
    return "pristine" if states == {"not-applied"} else "partial"
