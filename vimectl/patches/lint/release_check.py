"""Compare a patch with a release: whether the files are those it was made for, and where each hunk fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import blob_id
from vimectl.patches.lint.report import HunkReport
from vimectl.patches.patchfile import Defect, FileDiff, PatchFile, place, tree
from vimectl.patches.patchfile.place import Image
from vimectl.patches.patchfile.tree import File
from vimectl.patches.sources import Sources

# As many lines of context as `patch` ignores unless it is told otherwise.
MOST_FUZZ = 2
_RULES = {
    "offset": "hunk-at-offset",
    "fuzz": "hunk-needs-fuzz",
    "applied": "hunk-applied-already",
    "does-not-apply": "hunk-does-not-apply",
}


class Release:
    """The files of a release, some of them as earlier patches left them (None: removed)."""

    def __init__(self, sources: Sources, changed: Mapping[str, File | None] | None = None) -> None:
        self.name = sources.name
        self._sources = sources
        self._changed = changed or {}

    def file(self, path: str) -> File | None:
        """Return a file, its mode as far as patches say it, or None when there is none."""
        if path in self._changed:
            return self._changed[path]
        content = self._sources.read(path)
        return None if content is None else File(content)

    def patched(self, patch: PatchFile) -> Release:
        """Return the release with a patch applied. Raises Refused when it does not apply."""
        return Release(self._sources, {**self._changed, **tree.apply(patch.diffs, self.file)})


def check(patch: PatchFile, release: Release) -> tuple[list[HunkReport], list[Defect]]:
    """Return how each hunk fits, and what is wrong with the files."""
    reports: list[HunkReport] = []
    defects: list[Defect] = []
    for diff in patch.diffs:
        found, wrong = _File(diff, release).check()
        reports += found
        defects += wrong
        defects += (_as_defect(report) for report in found if report.result in _RULES)
    return reports, defects


class _File:
    def __init__(self, diff: FileDiff, release: Release) -> None:
        self._diff = diff
        self._release = release
        self._old = None if diff.old_path is None else release.file(diff.old_path)
        self._new = None if diff.new_path in (None, diff.old_path) else release.file(diff.new_path or "")

    def check(self) -> tuple[list[HunkReport], list[Defect]]:
        diff, name = self._diff, self._release.name
        if self._is_there_already():
            return self._all("applied"), []
        if diff.old_path is not None and self._old is None and not diff.may_create:
            return self._all("does-not-apply"), [self._wrong(f"{name} has no {diff.old_path}")]
        if diff.action in ("create", "rename", "copy") and self._new is not None:
            return self._all("does-not-apply"), [self._wrong(f"{name} has {diff.new_path} already")]
        content = self._old.content if self._old else b""
        defects = list(self._id("old", content, diff.old_blob)) if self._old else []
        if diff.binary is not None:
            return self._binary(), defects
        image = Image(content)
        reports = [self._hunk(image, number) for number in range(len(diff.hunks))]
        if all(report.result == "exact" for report in reports) and not defects and diff.new_path:
            defects += self._id("new", image.content(), diff.new_blob)
        return reports, defects

    def _is_there_already(self) -> bool:
        """Whether the release has what the diff makes of the whole file."""
        diff = self._diff
        if diff.action == "delete":
            return self._old is None
        there = self._new if diff.old_path != diff.new_path else self._old
        if there is None or not (diff.hunks or diff.binary or diff.action == "create"):
            return False
        known = bool(diff.new_blob and len(diff.new_blob) >= 7)
        if known:
            return blob_id(there.content).startswith(diff.new_blob or "") and diff.old_blob != diff.new_blob
        return diff.action == "create" and there.content == b"".join(
            line for hunk in diff.hunks for line in hunk.side("+")
        )

    def _hunk(self, image: Image, number: int) -> HunkReport:
        hunk = self._diff.hunks[number]
        found = place.find(image, hunk)
        if found is not None:
            image.replace(found)
            return self._report(hunk.line, "offset" if found.offset else "exact", found.offset)
        if place.find(image, place.undone(hunk)) is not None:
            return self._report(hunk.line, "applied")
        found = place.find(image, hunk, MOST_FUZZ)
        if found is not None:
            image.replace(found)
            return self._report(hunk.line, "fuzz", found.offset, found.fuzz)
        return self._report(hunk.line, "does-not-apply")

    def _binary(self) -> list[HunkReport]:
        try:
            tree.apply([self._diff], self._release.file)
        except UsageError:
            return self._all("does-not-apply")
        return self._all("exact")

    def _all(self, result: str) -> list[HunkReport]:
        lines = [hunk.line for hunk in self._diff.hunks] or [self._diff.line]
        return [self._report(line, result) for line in lines]

    def _report(self, line: int, result: str, offset: int = 0, fuzz: int = 0) -> HunkReport:
        return HunkReport(self._diff.path, line, result, offset, fuzz)  # type: ignore[arg-type]

    def _id(self, side: str, content: bytes, stated: str | None) -> Iterator[Defect]:
        found = blob_id(content)
        if stated and not found.startswith(stated):
            whose = f"in {self._release.name}" if side == "old" else "after this patch"
            message = f"{self._diff.path} is {found} {whose}, the index line says {stated}"
            yield Defect(self._diff.line, "blob-id", message)

    def _wrong(self, message: str) -> Defect:
        return Defect(self._diff.line, "not-in-release", message)


def _as_defect(report: HunkReport) -> Defect:
    said = {
        "offset": f"the hunk fits {report.path} {report.offset:+} lines from where it says",
        "fuzz": f"the hunk fits {report.path} only without {report.fuzz} lines of context at each end",
        "applied": f"{report.path} has this change already",
        "does-not-apply": f"the hunk has no place in {report.path}",
    }
    return Defect(report.line, _RULES[report.result], said[report.result])
