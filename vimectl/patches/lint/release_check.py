"""Compare a patch with a release: check the blob ids of its files, and find where each hunk fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile.apply import GitFile, PatchedLines, apply_patch, find_hunk
from vimectl.patches.patchfile.file_diff import Defect, FileDiff, Hunk, PatchFile
from vimectl.patches.release_files import ReleaseFiles

HunkResult = Literal["exact", "offset", "fuzz", "applied", "does-not-apply"]
# The default of `patch`.
MAX_FUZZ = 2


@dataclass(frozen=True)
class HunkFit:
    """The fit of a hunk, at ``line`` of the patch file, to the release. A binary file counts as one hunk.

    ``offset`` is the distance in lines from the stated position, ``fuzz`` the number of context lines
    ignored at each end.
    """

    path: str
    line: int
    result: HunkResult
    offset: int = 0
    fuzz: int = 0


class PatchedRelease:
    """The files of a release after some patches. ``changed``: None for a removed file."""

    def __init__(self, files: ReleaseFiles, changed: Mapping[str, GitFile | None] | None = None) -> None:
        self.name = files.name
        self._files = files
        self._changed = changed or {}

    def file(self, path: str) -> GitFile | None:
        """Return a file, or None when there is none. The mode is known only if a patch states it."""
        if path in self._changed:
            return self._changed[path]
        content = self._files.read(path)
        return None if content is None else GitFile(content)

    def with_patch(self, patch: PatchFile) -> PatchedRelease:
        """Return the release with one more patch. Raises PatchRefused when it does not apply."""
        return PatchedRelease(self._files, {**self._changed, **apply_patch(patch.diffs, self.file)})


def check_release(patch: PatchFile, release: PatchedRelease) -> tuple[list[HunkFit], list[Defect]]:
    """Return how each hunk fits, and the defects of hunks and files."""
    fits: list[HunkFit] = []
    defects: list[Defect] = []
    for diff in patch.diffs:
        found, wrong = _FileCheck(diff, release).check()
        fits += found
        defects += wrong
        defects += (defect for fit in found if (defect := _as_defect(fit)))
    return fits, defects


class _FileCheck:
    def __init__(self, diff: FileDiff, release: PatchedRelease) -> None:
        self._diff = diff
        self._release = release
        self._old = None if diff.old_path is None else release.file(diff.old_path)
        self._new = None if diff.new_path in (None, diff.old_path) else release.file(diff.new_path or "")

    def check(self) -> tuple[list[HunkFit], list[Defect]]:
        diff, name = self._diff, self._release.name
        if self._is_applied():
            return self._same_for_all("applied"), []
        if diff.old_path is not None and self._old is None and not diff.may_create:
            return self._same_for_all("does-not-apply"), [self._wrong(f"{name} has no {diff.old_path}")]
        if diff.action in ("create", "rename", "copy") and self._new is not None:
            return self._same_for_all("does-not-apply"), [self._wrong(f"{name} has {diff.new_path} already")]
        content = self._old.content if self._old else b""
        defects = list(self._check_id("old", content, diff.old_blob)) if self._old else []
        if diff.binary is not None:
            return self._binary(), defects
        file = PatchedLines(content)
        fits = [self._fit_hunk(file, hunk) for hunk in diff.hunks]
        if all(fit.result == "exact" for fit in fits) and not defects and diff.new_path:
            defects += self._check_id("new", file.content(), diff.new_blob)
        return fits, defects

    def _is_applied(self) -> bool:
        """Return True if the release has the file as the diff leaves it."""
        diff = self._diff
        if diff.action == "delete":
            return self._old is None
        file = self._new if diff.old_path != diff.new_path else self._old
        if file is None or not (diff.hunks or diff.binary or diff.action == "create"):
            return False
        if diff.new_blob and len(diff.new_blob) >= 7:
            return file.blob.startswith(diff.new_blob) and diff.old_blob != diff.new_blob
        return diff.action == "create" and file.content == b"".join(
            line for hunk in diff.hunks for line in hunk.new_lines()
        )

    def _fit_hunk(self, file: PatchedLines, hunk: Hunk) -> HunkFit:
        match = find_hunk(file, hunk)
        if match is not None:
            file.replace(match)
            return self._fit(hunk.line, "offset" if match.offset else "exact", match.offset)
        if find_hunk(file, hunk.reversed()) is not None:
            return self._fit(hunk.line, "applied")
        match = find_hunk(file, hunk, MAX_FUZZ)
        if match is not None:
            file.replace(match)
            return self._fit(hunk.line, "fuzz", match.offset, match.fuzz)
        return self._fit(hunk.line, "does-not-apply")

    def _binary(self) -> list[HunkFit]:
        try:
            apply_patch([self._diff], self._release.file)
        except UsageError:
            return self._same_for_all("does-not-apply")
        return self._same_for_all("exact")

    def _same_for_all(self, result: HunkResult) -> list[HunkFit]:
        lines = [hunk.line for hunk in self._diff.hunks] or [self._diff.line]
        return [self._fit(line, result) for line in lines]

    def _fit(self, line: int, result: HunkResult, offset: int = 0, fuzz: int = 0) -> HunkFit:
        return HunkFit(self._diff.path, line, result, offset, fuzz)

    def _check_id(self, version: str, content: bytes, stated: str | None) -> Iterator[Defect]:
        found = blob_id(content)
        if stated and not found.startswith(stated):
            where = f"in {self._release.name}" if version == "old" else "after this patch"
            message = f"{self._diff.path} is {found} {where}, the index line states {stated}"
            yield Defect(self._diff.line, "blob-id", message)

    def _wrong(self, message: str) -> Defect:
        return Defect(self._diff.line, "not-in-release", message)


def _as_defect(fit: HunkFit) -> Defect | None:
    if fit.result == "exact":
        return None
    rule, message = {
        "offset": (
            "hunk-at-offset",
            f"the hunk fits {fit.path} {fit.offset:+} lines from the stated position",
        ),
        "fuzz": (
            "hunk-needs-fuzz",
            f"the hunk fits {fit.path} only without {fit.fuzz} lines of context at each end",
        ),
        "applied": ("hunk-applied-already", f"{fit.path} has this change already"),
        "does-not-apply": ("hunk-does-not-apply", f"the hunk does not fit anywhere in {fit.path}"),
    }[fit.result]
    return Defect(fit.line, rule, message)
