"""Port all patches of a series, each on top of the previous ones in the new release."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches.blobs import id_of
from vimectl.patches.content import stages
from vimectl.patches.patchfile.file_diff import FileDiff
from vimectl.patches.port import changes, rename_detection
from vimectl.patches.port.changes import Change
from vimectl.patches.port.conflict_folder import Resolutions
from vimectl.patches.port.port_file import (
    DEFAULT_MODE,
    LEFT_OUT,
    RESULTS,
    FilePort,
    MergeLabels,
    PortResult,
    port_file,
)
from vimectl.patches.release_files import ReleaseFiles
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

    @property
    def is_partly_left_out(self) -> bool:
        """Return True if the patch is in the new series without some of its hunks."""
        results = {hunk.result for file in self.files for hunk in file.hunks}
        return not self.left_out and not results.isdisjoint(LEFT_OUT)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch port --json` prints for the patch."""
        files = [
            {
                "path": file.path,
                "result": file.result,
                "note": file.note,
                "hunks": [{"line": h.line, "result": h.result, "moved": h.moved} for h in file.hunks],
            }
            for file in self.files
        ]
        return {"id": self.id, "result": self.result, "reason": self.left_out, "files": files}


def rebase(
    series: Series, version: str, old: ReleaseFiles, new: ReleaseFiles, resolutions: Resolutions
) -> list[PatchPort]:
    """Merge every patch of a series into ``new``, the release ``version`` of the package.

    Raises:
        CheckFailed: ``old`` is not the release that the series is for.
        UsageError: the series is damaged, or a resolved file still has conflict markers.
        MissingRequirement: git is not installed.
    """
    state = _Rebase(series, version, old, new, resolutions)
    return [state.port(patch) for patch in series.patches]


class _Rebase:
    """``_stages`` yields by path a file of the old release before and after each patch of it.

    ``_current`` holds the files of the new release with the patches so far, ``_new_paths`` the new paths of
    renamed files. ``_blocked`` names by file the patch whose conflict
    must be resolved before later patches of the same file.
    """

    def __init__(
        self, series: Series, version: str, old: ReleaseFiles, new: ReleaseFiles, resolutions: Resolutions
    ) -> None:
        self._series, self._resolutions = series, resolutions
        self._old_files, self._new_files = old, new
        self._label = f"{series.package} {version}"
        released = {path: _read_released(series, old, path) for path in series.chains}
        self._stages = {path: pairwise(stages(series, path, file)) for path, file in released.items()}
        self._current: dict[str, bytes | None] = {}
        self._new_paths: dict[str, str] = {}
        self._blocked: dict[str, str] = {}

    def port(self, patch: Patch) -> PatchPort:
        """Port the next patch."""
        reason = self._resolutions.drop_reason(patch.id)
        ports = []
        for path, diff in patch.diffs.items():
            base, patched = next(self._stages[path])
            if not reason:
                port = self._port_file(patch, path, base, patched, changes.split(diff))
                ports.append(_with_modes(port, diff, base == patched))
                if port.result == "conflict":
                    self._blocked.setdefault(path, patch.id)
                else:
                    self._current[port.path] = port.after
        if reason:
            return PatchPort(patch.id, (), reason)
        found = PatchPort(patch.id, tuple(ports))
        if found.result != "upstream":
            return found
        return replace(found, left_out="; ".join(dict.fromkeys(file.note for file in found.files)))

    def _port_file(
        self,
        patch: Patch,
        old_path: str,
        base: bytes | None,
        patched: bytes | None,
        hunks: list[Change],
    ) -> FilePort:
        path = self._new_paths.get(old_path, old_path)
        release = self._read(path)
        if old_path in self._blocked:
            blocking = self._blocked[old_path]
            note = f"comes after {blocking}, whose conflict in this file is to be resolved first"
            return FilePort(path, "conflict", release, None, note)
        renamed = ""
        if release is None and base is not None and patched is not None:
            path, renamed = self._find_renamed(patch, old_path, base)
            release = self._read(path)
        resolved = self._resolutions.file(patch.id, path)
        if resolved is not None:
            self._new_paths[old_path] = path
            after = None if patched is None and not resolved else resolved
            result: PortResult = "upstream" if after == release else "offset"
            return FilePort(path, result, release, after, "as resolved by hand")

        def find_lines(lines: list[bytes]) -> str | None:
            return rename_detection.find_lines(lines, path, self._old_files, self._new_files)

        labels = MergeLabels(f"{self._series.package} {self._series.version}", self._label, patch.id)
        port = port_file(path, base, patched, release, hunks, labels, find_lines)
        if not renamed or port.result == "upstream":
            return port
        return replace(port, result="conflict", note=renamed)

    def _find_renamed(self, patch: Patch, path: str, base: bytes) -> tuple[str, str]:
        """Return the likely new path of a file that the new release lacks, and a note for the user."""
        chosen = self._resolutions.other_paths(patch.id, set(patch.files))
        if len(chosen) == 1:
            return chosen[0], "moved by hand"
        missing = f"{self._label} does not have {path}"
        likely = rename_detection.find_renamed(path, base, self._old_files, self._new_files)
        if likely is None:
            return path, f"{missing}, nor another new file that is similar"
        new_path, similarity = likely
        note = f"{new_path} is {similarity:.0%} similar, and the patch was merged there"
        return new_path, f"{missing}; {note}: check that it belongs there"

    def _read(self, path: str) -> bytes | None:
        if path not in self._current:
            self._current[path] = self._new_files.read(path)
        return self._current[path]


def _with_modes(port: FilePort, diff: FileDiff, only_mode: bool) -> FilePort:
    """Add the modes that the patch states; ``only_mode``: it changes nothing else."""
    old = diff.old_mode or diff.new_mode or DEFAULT_MODE
    new = diff.new_mode or old
    if only_mode and port.before is not None:
        result: PortResult = "clean" if port.result == "upstream" else port.result
        return replace(port, result=result, note="", modes=(old, new))
    return port if port.result == "upstream" else replace(port, modes=(old, new))


def _read_released(series: Series, old: ReleaseFiles, path: str) -> bytes | None:
    """Read a file of the release that a series is for. Raises CheckFailed when ``old`` is another."""
    content = old.read(path)
    found, stated = id_of(content), series.chains[path][0]
    if found != stated:
        raise CheckFailed(
            f"{old.name}: {path} is {found or 'not there'}, {series.name} is for {stated or 'none'}",
            f"name {series.package} {series.version} as it was released, unpatched, as the first --source",
        )
    return content
