"""Port all patches of a series, each on top of the previous ones in the new release."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches.git_commands import FileChanges
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.port import rename_detection
from vimectl.patches.port.conflict_folder import Resolutions
from vimectl.patches.port.port_file import FilePort, PatchPort, PortResult, port_file
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles
from vimectl.patches.restack import walk, with_mode
from vimectl.patches.series import Patch, Series


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
    releases: tuple[PatchedRelease, PatchedRelease],
    resolutions: Resolutions,
) -> list[PatchPort]:
    """Merge every patch of a series for one release into another.

    ``labels`` name the two releases in messages and conflict markers.

    Raises:
        CheckFailed: the old release is not the one that the series is for.
        UsageError: the series is damaged, or a resolved file still has conflict markers.
        MissingRequirement: git is not installed.
    """
    before, after = releases
    if difference := misfit(series, before):
        raise CheckFailed(
            f"{before.name}: {difference}",
            f"name {labels[0]} as it was released, unpatched, as the first --source",
        )
    state = _Rebase(labels, (before.files, after.files), resolutions, after)
    return [state.port(patch, changes) for patch, changes in walk(series, before.file)]


@dataclass
class _Rebase:
    """``current`` is the new release with the patches so far. ``blocked`` names by file the patch whose
    conflict must be resolved before later patches of the same file."""

    labels: tuple[str, str]
    releases: tuple[ReleaseFiles, ReleaseFiles]
    resolutions: Resolutions
    current: PatchedRelease
    new_paths: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    def port(self, patch: Patch, changes: FileChanges) -> PatchPort:
        """Port the next patch. ``changes`` has its files before and after it in the old release."""
        if reason := self.resolutions.drop_reason(patch.id):
            return PatchPort(patch.id, (), reason)
        ports = []
        for path, states in changes.items():
            port = self._port_file(patch, path, *states)
            ports.append(port)
            if port.result == "conflict":
                self.blocked.setdefault(path, patch.id)
            else:
                self.new_paths[path] = port.path
                self.current = self.current.with_changes({port.path: port.after})
        found = PatchPort(patch.id, tuple(ports))
        if found.result != "upstream":
            return found
        return replace(found, left_out="; ".join(dict.fromkeys(file.note for file in ports)))

    def _port_file(
        self, patch: Patch, old_path: str, base: GitFile | None, patched: GitFile | None
    ) -> FilePort:
        path, renamed = self.new_paths.get(old_path, old_path), ""
        if blocking := self.blocked.get(old_path):
            note = f"comes after {blocking}, whose conflict in this file is to be resolved first"
            return FilePort(path, "conflict", self.current.file(path), None, note)
        if base and patched and not self.current.file(path):
            path, renamed = self._find_renamed(patch, path, base.content)
        release = self.current.file(path)
        resolved = self.resolutions.file(patch.id, path)
        if resolved is not None:
            after = with_mode(resolved if resolved or patched else None, base, release, patched)
            result: PortResult = "upstream" if after == release else "offset"
            return FilePort(path, result, release, after, "as resolved by hand")
        find_lines = partial(rename_detection.find_lines, path, self.releases)
        labels = (*self.labels, patch.id)
        port = port_file(path, patch.diffs[old_path], base, patched, release, labels, find_lines)
        if renamed and port.result != "upstream":
            return replace(port, result="conflict", note=renamed)
        return port

    def _find_renamed(self, patch: Patch, path: str, base: bytes) -> tuple[str, str]:
        """Return the likely new path of a file that the new release lacks, and a note for the user."""
        if chosen := self.resolutions.moved_to(patch.id, patch.files):
            return chosen, "moved by hand"
        missing = f"{self.labels[1]} does not have {path}"
        if not (likely := rename_detection.find_renamed(path, base, self.releases)):
            return path, f"{missing}, nor another new file that is similar"
        new_path, similarity = likely
        note = f"{new_path} is {similarity:.0%} similar, and the patch was merged there"
        return new_path, f"{missing}; {note}: check that it belongs there"
