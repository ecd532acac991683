"""Carry a whole series over, patch after patch, each on what the ones before it made of the new release."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import hunks
from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile import FileDiff
from vimectl.patches.port import changes, port_file, rename_detection
from vimectl.patches.port.port_file import ORDINARY, RESULTS, FilePort, Names, Result
from vimectl.patches.port.scratch import Resolved
from vimectl.patches.series import Patch, PatchedFile, Series
from vimectl.patches.sources import Sources


@dataclass(frozen=True)
class PatchPort:
    """One patch. ``left_out`` says why it is not in the new series; empty when it is."""

    id: str
    files: tuple[FilePort, ...]
    left_out: str = ""

    @property
    def result(self) -> Result:
        """The gravest of what is left of it; ``upstream`` when nothing is."""
        return max((file.result for file in self.files), key=RESULTS.index, default="upstream")

    @property
    def is_partly_left_out(self) -> bool:
        """Whether the patch is in the new series without some of its hunks."""
        results = {hunk.result for file in self.files for hunk in file.hunks}
        return not self.left_out and bool(results & {"upstream", "gone"})

    def as_json(self) -> dict[str, Any]:
        """The patch as `patch port --json` prints it."""
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


def carry(series: Series, version: str, old: Sources, new: Sources, resolved: Resolved) -> list[PatchPort]:
    """Merge every patch of a series into ``new``, the release ``version`` of the package.

    ``resolved`` is what somebody decided about conflicts of an earlier call.

    Raises:
        CheckFailed: ``old`` is not the release that the series is for.
        UsageError: the series is damaged, or a resolved file still has conflict markers.
        MissingRequirement: there is no git.
    """
    carrying = _Carrying(series, version, old, new, resolved)
    return [carrying.patch(patch) for patch in series.patch]


class _Carrying:
    """``_old`` and ``_now`` hold the contents of the files in either release, with the patches so far.

    ``_places`` are the new paths of files that went elsewhere; ``_waiting`` names the patch whose conflict in
    a file keeps later patches of the same file waiting.
    """

    def __init__(self, series: Series, version: str, old: Sources, new: Sources, resolved: Resolved) -> None:
        self._series, self._resolved = series, resolved
        self._sources = old, new
        self._label = f"{series.package} {version}"
        self._old = {path: _released(series, old, path) for path in series.chains}
        self._now: dict[str, bytes | None] = {}
        self._places: dict[str, str] = {}
        self._waiting: dict[str, str] = {}

    def patch(self, patch: Patch) -> PatchPort:
        """Carry the next patch."""
        diffs = hunks.read(self._series.directory / f"{patch.id}.patch")
        reason = self._resolved.dropped(patch.id)
        ports = []
        for file in patch.files:
            base = self._old[file.path]
            if file.path not in diffs:
                raise UsageError(f"{patch.id}.patch does not touch {file.path}", "the series is damaged")
            patched = hunks.apply(base, diffs[file.path])
            if (None if patched is None else blob_id(patched)) != file.after:
                raise UsageError(
                    f"{patch.id}: {file.path} does not become {file.after}", "the series is damaged"
                )
            if not reason:
                parts = changes.split(diffs[file.path])
                port = self._file(patch, file, base, patched, parts)
                ports.append(self._settled(patch, file, _with_modes(port, diffs[file.path], base == patched)))
            self._old[file.path] = patched
        if reason:
            return PatchPort(patch.id, (), reason)
        found = PatchPort(patch.id, tuple(ports))
        if found.result != "upstream":
            return found
        return replace(found, left_out="; ".join(dict.fromkeys(file.note for file in found.files)))

    def _file(
        self,
        patch: Patch,
        file: PatchedFile,
        base: bytes | None,
        patched: bytes | None,
        parts: list[changes.Change],
    ) -> FilePort:
        place = self._places.get(file.path, file.path)
        release = self._content(place)
        if file.path in self._waiting:
            note = (
                f"comes after {self._waiting[file.path]}, whose conflict in this file is to be resolved first"
            )
            return FilePort(place, "conflict", release, None, note)
        gone = ""
        if release is None and base is not None and patched is not None:
            place, gone = self._elsewhere(patch, file.path, base)
            release = self._content(place)
        decided = self._resolved.file(patch.id, place)
        if decided is not None:
            self._places[file.path] = place
            after = None if patched is None and not decided else decided
            return FilePort(
                place, "upstream" if after == release else "offset", release, after, "as resolved by hand"
            )

        def elsewhere(lines: list[bytes]) -> str | None:
            return rename_detection.holding(lines, place, *self._sources)

        names = Names(f"{self._series.package} {self._series.version}", patch.id, self._label)
        port = port_file.port(place, base, patched, release, parts, names, elsewhere)
        if not gone or port.result == "upstream":
            return port
        return replace(port, result="conflict", note=gone)

    def _elsewhere(self, patch: Patch, path: str, base: bytes) -> tuple[str, str]:
        """Return where a file that the new release lacks may be, and what to say of it."""
        chosen = self._resolved.others(patch.id, {file.path for file in patch.files})
        if len(chosen) == 1:
            return chosen[0], "moved by hand"
        gone = f"{self._label} does not have {path}"
        likely = rename_detection.find(path, base, *self._sources)
        if likely is None:
            return path, f"{gone}, nor another new file that is much like it"
        return likely.path, (
            f"{gone}; {likely.path} is {likely.likeness:.0%} alike, and the patch was merged there: "
            "see whether it belongs there"
        )

    def _settled(self, patch: Patch, file: PatchedFile, port: FilePort) -> FilePort:
        """Take in what became of a file."""
        if port.result == "conflict":
            self._waiting.setdefault(file.path, patch.id)
        else:
            self._now[port.path] = port.after
        return port

    def _content(self, path: str) -> bytes | None:
        if path not in self._now:
            self._now[path] = self._sources[1].read(path)
        return self._now[path]


def _with_modes(port: FilePort, diff: FileDiff, only_mode: bool) -> FilePort:
    """Add what the patch says of the modes; ``only_mode``: it changes nothing else."""
    old = diff.old_mode or diff.new_mode or ORDINARY
    new = diff.new_mode or old
    if only_mode and port.before is not None:
        result: Result = "clean" if port.result == "upstream" else port.result
        return replace(port, result=result, note="", modes=(old, new))
    return port if port.result == "upstream" else replace(port, modes=(old, new))


def _released(series: Series, old: Sources, path: str) -> bytes | None:
    """Return a file of the release that a series is for. Raises CheckFailed when ``old`` is another."""
    content = old.read(path)
    found, stated = None if content is None else blob_id(content), series.chains[path][0]
    if found != stated:
        raise CheckFailed(
            f"{old.name}: {path} is {found or 'not there'}, {series.name} is for {stated or 'none'}",
            f"name {series.package} {series.version} as it was released, unpatched, as the first --source",
        )
    return content
