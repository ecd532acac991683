"""Which state a target is in, judged by content alone: blob id and mode of every file of the series."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from vimectl.patches import applied_state, tree, upstream
from vimectl.patches.blobs import LINK, NOTHING, Found
from vimectl.patches.series import Patch, Series
from vimectl.patches.target import Target

FileState = Literal["applied", "not-applied", "merged", "upstream", "outdated", "drifted"]
PatchState = Literal["applied", "not-applied", "upstream", "partial", "drifted"]
TargetState = Literal["pristine", "applied", "partial", "drifted", "unsupported"]


@dataclass(frozen=True)
class PatchStatus:
    """One patch in a target. ``files`` are (path, state):

    ``merged``: exactly what `apply --merge` made of the patched file and somebody's edits; counts as applied.
    ``upstream``: unknown content, in which no apply is recorded and every hunk of the patch is already there.
    ``outdated``: as an earlier revision of the series left it.
    """

    id: str
    state: PatchState
    files: tuple[tuple[str, FileState], ...]


@dataclass(frozen=True)
class TargetStatus:
    """A package in a target against its series; ``series`` is None when this version has none.

    ``found`` is what each file of the series is, ``obstacles`` why some of them cannot be written.
    ``entry`` is what the ledger says of the package. ``leftover`` are files that an earlier revision of the
    series patched and this one does not touch.
    """

    target: Target
    series: Series | None
    state: TargetState
    patches: tuple[PatchStatus, ...] = ()
    found: dict[str, Found] = field(default_factory=dict)
    obstacles: dict[str, str] = field(default_factory=dict)
    entry: applied_state.Entry | None = None
    leftover: tuple[applied_state.File, ...] = ()

    @property
    def drifted(self) -> list[str]:
        """The files that are neither as released nor as any apply left them."""
        return self.having("drifted")

    def having(self, state: FileState) -> list[str]:
        """The files that are in this state for one of the patches, sorted."""
        return sorted({path for patch in self.patches for path, its in patch.files if its == state})

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
    """Compare the files of a target with a series. Reads the files and nothing else of the package.

    Raises UsageError when the ledger, or the wheel that the target is, is damaged.
    """
    if series is None:
        return TargetStatus(target, None, "unsupported")
    entry = applied_state.read(target.location).get(target.package)
    found, obstacles = _look(target, series)

    def file_state(patch: Patch, path: str) -> FileState:
        position = series.position(path, found[path])
        if path in obstacles:
            return "drifted"
        if position is not None:
            return "applied" if position > series.touching(path).index(patch) else "not-applied"
        recorded = entry.file(path) if entry else None
        if recorded is None:
            there = upstream.contains(series, patch, path, tree.content(target.location, path))
            return "upstream" if there else "drifted"
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
        for file in (entry.files if entry else ())
        if file.path not in series.chains and tree.found(target.location, file.path).blob == file.after
    )
    state = _target_state({patch.state for patch in patches})
    if leftover and state != "drifted":
        state = "partial"
    return TargetStatus(target, series, state, tuple(patches), found, obstacles, entry, leftover)


def _look(target: Target, series: Series) -> tuple[dict[str, Found], dict[str, str]]:
    found, obstacles = {}, {}
    for path in series.chains:
        obstacle = tree.obstacle(target.location, path)
        found[path] = NOTHING if obstacle else tree.found(target.location, path)
        if found[path].mode == LINK and series.position(path, found[path]) is None:
            obstacle = f"it is a symbolic link, to {(target.location / path).readlink()}"
        if obstacle:
            obstacles[path] = obstacle
    return found, obstacles


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
    # What upstream has taken is neither ours to apply nor missing.
    states = set(states) - {"upstream"}
    if "drifted" in states:
        return "drifted"
    if states <= {"applied"}:
        return "applied"
    return "pristine" if states == {"not-applied"} else "partial"
