"""Port all patches of a series, each on top of the previous ones in the new release."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches.git_commands import FileChanges
from vimectl.patches.lint.release_check import PatchedRelease
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.port import rename_detection
from vimectl.patches.port.conflict_folder import Resolutions
from vimectl.patches.port.port_file import RESULTS, FilePort, PortResult, port_file
from vimectl.patches.release_files import ReleaseFiles
from vimectl.patches.restack import FileStates, walk, with_mode
from vimectl.patches.series import Patch, Series


@dataclass(frozen=True)
class PatchPort:
    """One patch. ``left_out`` is the reason why it is not in the new series; empty when it is."""

    id: str
    files: tuple[FilePort, ...]
    left_out: str = ""

    @property
    def result(self) -> PortResult:
        """Return the most severe result of its files, or ``upstream`` without files."""
        return max((file.result for file in self.files), key=RESULTS.index, default="upstream")

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch port --json` prints for the patch."""
        files = [{"path": file.path, "result": file.result, "note": file.note} for file in self.files]
        return {"id": self.id, "result": self.result, "reason": self.left_out, "files": files}


def misfit(series: Series, release: PatchedRelease) -> str:
    """Return how a release differs from the one that a series is for; "" if it does not."""
    for path, (wanted, *_) in series.chains.items():
        file = release.file(path)
        if (found := file.blob if file else None) != wanted:
            return f"{path} is {found or 'not there'}, {series.name} is for {wanted or 'none'}"
    return ""


def rebase(
    series: Series,
    labels: tuple[str, str],
    old: ReleaseFiles,
    new: ReleaseFiles,
    resolutions: Resolutions,
    below: tuple[FileStates, FileStates],
) -> list[PatchPort]:
    """Merge every patch of a series for the release ``old`` into ``new``.

    ``labels`` name the two releases in messages and conflict markers. ``below`` has the files of both that
    another series changes, on which this one is stacked.

    Raises:
        CheckFailed: ``old`` is not the release that the series is for.
        UsageError: the series is damaged, or a resolved file still has conflict markers.
        MissingRequirement: git is not installed.
    """
    released = PatchedRelease(old, below[0])
    if difference := misfit(series, released):
        raise CheckFailed(
            f"{old.name}: {difference}",
            f"name {labels[0]} as it was released, unpatched, as the first --source",
        )
    state = _Rebase(labels, old, new, resolutions, PatchedRelease(new, below[1]))
    return [state.port(patch, changes) for patch, changes in walk(series, released.file)]


@dataclass
class _Rebase:
    """``current`` is the new release with the patches so far. ``blocked`` names by file the patch whose
    conflict must be resolved before later patches of the same file."""

    labels: tuple[str, str]
    old: ReleaseFiles
    new: ReleaseFiles
    resolutions: Resolutions
    current: PatchedRelease
    new_paths: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    def port(self, patch: Patch, changes: FileChanges) -> PatchPort:
        """Port the next patch. ``changes`` has its files before and after it in the old release."""
        if reason := self.resolutions.drop_reason(patch.id):
            return PatchPort(patch.id, (), reason)
        ports = []
        for path, (base, patched) in changes.items():
            port = self._port_file(patch, path, base, patched)
            ports.append(port)
            if port.result == "conflict":
                self.blocked.setdefault(path, patch.id)
            else:
                self.current = self.current.with_changes({port.path: port.after})
        found = PatchPort(patch.id, tuple(ports))
        if found.result != "upstream":
            return found
        return replace(found, left_out="; ".join(dict.fromkeys(file.note for file in ports)))

    def _port_file(
        self, patch: Patch, old_path: str, base: GitFile | None, patched: GitFile | None
    ) -> FilePort:
        path = self.new_paths.get(old_path, old_path)
        release = self.current.file(path)
        if blocking := self.blocked.get(old_path):
            note = f"comes after {blocking}, whose conflict in this file is to be resolved first"
            return FilePort(path, "conflict", release, None, note)
        renamed = ""
        if release is None and base is not None and patched is not None:
            path, renamed = self._find_renamed(patch, old_path, base.content)
            release = self.current.file(path)
        resolved = self.resolutions.file(patch.id, path)
        if resolved is not None:
            self.new_paths[old_path] = path
            deleted = patched is None and not resolved
            after = with_mode(None if deleted else resolved, base, release, patched)
            result: PortResult = "upstream" if after == release else "offset"
            return FilePort(path, result, release, after, "as resolved by hand")

        def find_lines(lines: list[bytes]) -> str | None:
            return rename_detection.find_lines(lines, path, self.old, self.new)

        labels = (*self.labels, patch.id)
        port = port_file(path, patch.diffs[old_path], base, patched, release, labels, find_lines)
        if renamed and port.result != "upstream":
            return replace(port, result="conflict", note=renamed)
        return port

    def _find_renamed(self, patch: Patch, path: str, base: bytes) -> tuple[str, str]:
        """Return the likely new path of a file that the new release lacks, and a note for the user."""
        chosen = self.resolutions.other_paths(patch.id, set(patch.files))
        if len(chosen) == 1:
            return chosen[0], "moved by hand"
        missing = f"{self.labels[1]} does not have {path}"
        likely = rename_detection.find_renamed(path, base, self.old, self.new)
        if likely is None:
            return path, f"{missing}, nor another new file that is similar"
        new_path, similarity = likely
        note = f"{new_path} is {similarity:.0%} similar, and the patch was merged there"
        return new_path, f"{missing}; {note}: check that it belongs there"
