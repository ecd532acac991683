"""Compare a patch with a release: find where each hunk fits, and check the blob ids of its files.

A hunk is tried at the line it states, then one line further down, one up, two down, and so on. One that
starts at line 1 must fit there, and one without trailing context must fit at the end of the file. No line
is patched twice. These are git's rules; git does not report where a hunk fits, nor that its change is there
already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile import binary
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.patchfile.file_diff import Defect, FileDiff, Hunk, PatchFile
from vimectl.patches.patchfile.reader import parse
from vimectl.patches.release_files import PatchedRelease

HunkResult = Literal["exact", "offset", "fuzz", "applied", "does-not-apply"]
# The default of `patch`.
MAX_FUZZ = 2
_DEFECTS = {
    "offset": ("hunk-at-offset", "the hunk fits {path} {offset:+} lines from the stated position"),
    "fuzz": ("hunk-needs-fuzz", "the hunk fits {path} only without {fuzz} lines of context at each end"),
    "applied": ("hunk-applied-already", "{path} has this change already"),
    "does-not-apply": ("hunk-does-not-apply", "the hunk does not fit anywhere in {path}"),
}
# The deepest layouts that packages have: a/python/src/package/file.py.
_STRIP_LEVELS = range(5)


@dataclass(frozen=True)
class HunkFit:
    """The fit of a hunk, at ``line`` of the patch file, to the release. A binary file counts as one hunk.

    ``offset`` is the distance in lines from the stated position, positive for further down. ``fuzz`` is the
    number of context lines that were ignored at each end.
    """

    path: str
    line: int
    result: HunkResult
    offset: int = 0
    fuzz: int = 0


@dataclass
class ReleaseCheck:
    """How each hunk fits, the defects of hunks and files, and the files as far as the patch applies."""

    fits: list[HunkFit] = field(default_factory=list)
    defects: list[Defect] = field(default_factory=list)
    changed: dict[str, GitFile | None] = field(default_factory=dict)


def check_release(patch: PatchFile, release: PatchedRelease) -> ReleaseCheck:
    """Compare every diff of a patch with a release, each on top of those before it."""
    found = ReleaseCheck()
    for diff in patch.diffs:
        # git takes the content of a renamed or copied file from before the patch.
        if diff.old_path in found.changed and diff.action not in ("rename", "copy"):
            old = found.changed[diff.old_path]
        else:
            old = release.file(diff.old_path) if diff.old_path else None
        # An earlier diff may have removed the file; one that it made is not in the way of git either.
        free = diff.new_path in (None, diff.old_path) or diff.new_path in found.changed
        new = None if free else release.file(diff.new_path or "")
        fits, content = _check_diff(diff, old, new, release.name, found.defects)
        found.fits += fits
        for fit in fits:
            if fit.result != "exact":
                rule, message = _DEFECTS[fit.result]
                message = message.format(path=fit.path, offset=fit.offset, fuzz=fit.fuzz)
                if fit.result == "does-not-apply":
                    message += _line_endings(diff, fit.line, old)
                found.defects.append(Defect(fit.line, rule, message))
        if diff.old_path and diff.action != "copy":
            found.changed[diff.old_path] = None
        if diff.new_path:
            found.changed[diff.new_path] = GitFile(content, diff.new_mode or (old.mode if old else "100644"))
    if any(defect.rule == "not-in-release" for defect in found.defects):
        found.defects += _check_strip_level(patch, release)
    return found


def _check_strip_level(patch: PatchFile, release: PatchedRelease) -> Iterator[Defect]:
    """Report that more of the files are in the release at another strip level."""
    levels = {level: parse(patch.text, level).diffs for level in (patch.strip, *_STRIP_LEVELS)}
    paths = {level: {diff.old_path or diff.path for diff in diffs} for level, diffs in levels.items()}
    present = {level: sorted(filter(release.file, paths[level])) for level in levels}
    best = max(present, key=lambda level: len(present[level]))  # the first of several
    if best != patch.strip:
        count = f"{len(present[best])} of {len(levels[patch.strip])} files"
        message = f"-p {best} finds {count}, as {present[best][0]}"
        yield Defect(patch.diffs[0].line, "strip-level", message)


def _line_endings(diff: FileDiff, line: int, old: GitFile | None) -> str:
    """Return the end of a message, if the hunk at a line has other line endings than the file."""
    lines = [text for hunk in diff.hunks if hunk.line == line for text in hunk.old_lines()]
    if not lines or old is None:
        return ""
    ours, theirs = (
        "CRLF" if any(text.endswith(b"\r\n") for text in part) else "LF"
        for part in (lines, BytesIO(old.content))
    )
    return "" if ours == theirs else f": its lines end in {ours}, those of the file in {theirs}"


def _check_diff(
    diff: FileDiff, old: GitFile | None, new: GitFile | None, release: str, defects: list[Defect]
) -> tuple[list[HunkFit], bytes]:
    """Return how the hunks of a diff fit, and the file with those that do. Append the file's defects."""
    content = old.content if old else b""
    lines = [hunk.line for hunk in diff.hunks] or [diff.line]
    wrong = [HunkFit(diff.path, line, "does-not-apply") for line in lines]
    if _is_applied(diff, old, new):
        return [HunkFit(diff.path, line, "applied") for line in lines], (new or old or GitFile(b"")).content
    if diff.old_path is not None and old is None and not diff.may_create:
        defects.append(Defect(diff.line, "not-in-release", f"{release} has no {diff.old_path}"))
        return wrong, content
    if diff.action in ("create", "rename", "copy") and new is not None:
        defects.append(Defect(diff.line, "not-in-release", f"{release} has {diff.new_path} already"))
        return wrong, content
    defects += _check_id(diff, content, diff.old_blob, f"in {release}") if old else ()
    if diff.binary is not None:
        result = _apply_binary(diff, content)
        return (wrong, content) if result is None else ([HunkFit(diff.path, diff.line, "exact")], result)
    file = PatchedLines(content)
    fits = [_fit_hunk(diff.path, file, hunk) for hunk in diff.hunks]
    content = b"".join(file.lines)
    if all(fit.result == "exact" for fit in fits) and diff.new_path:
        defects += _check_id(diff, content, diff.new_blob, "after this patch")
    return fits, content


def _apply_binary(diff: FileDiff, content: bytes) -> bytes | None:
    """Return the new content of a binary file; None if the diff is for other content or has no data."""
    if not diff.binary or (diff.old_path and blob_id(content) != diff.old_blob):
        return None
    try:
        result = binary.apply_binary(content, diff.binary[0])
    except binary.CorruptBinary:
        return None
    return result if diff.new_path is None or blob_id(result) == diff.new_blob else None


def _is_applied(diff: FileDiff, old: GitFile | None, new: GitFile | None) -> bool:
    """Return True if the release has the file as the diff leaves it."""
    if diff.action == "delete":
        return old is None
    file = new if diff.old_path != diff.new_path else old
    if file is None or not (diff.hunks or diff.binary or diff.action == "create"):
        return False
    if diff.action == "create" and not diff.binary:
        return file.content == b"".join(line for hunk in diff.hunks for line in hunk.new_lines())
    new_blob = diff.new_blob or ""
    return len(new_blob) >= 7 and file.blob.startswith(new_blob) and diff.old_blob != new_blob


def _check_id(diff: FileDiff, content: bytes, stated: str | None, where: str) -> Iterator[Defect]:
    found = blob_id(content)
    if stated and not found.startswith(stated):
        message = f"{diff.path} is {found} {where}, the index line states {stated}"
        yield Defect(diff.line, "blob-id", message)


class PatchedLines:
    """The lines of a file while hunks are applied; ``patched`` marks those that a hunk produced."""

    def __init__(self, content: bytes) -> None:
        self.lines = BytesIO(content).readlines()
        self.patched = bytearray(len(self.lines))

    def find(self, hunk: Hunk, head: int = 0, tail: int = 0) -> int | None:
        """Return where a hunk fits without ``head`` and ``tail`` lines of its context, or None.

        It is the position nearest to the stated one; of two, the one further down.
        """
        wanted = hunk.old_lines()[head : hunk.old_count - tail]
        last = len(self.lines) - len(wanted)
        whole = not (head or tail)
        at_start, at_end = whole and hunk.old_start <= 1, whole and not hunk.context()[1]
        if at_start or at_end:
            position = 0 if at_start else last
            possible = last >= 0 and not (at_start and at_end and last)
            return position if possible and self.fits(wanted, position) else None
        stated = min(max(0, hunk.new_start - 1) + head, len(self.lines))
        if not wanted or self.fits(wanted, stated):
            return stated
        starts = (n for n, line in enumerate(self.lines) if line == wanted[0] and n <= last)
        nearest = sorted(starts, key=lambda n: (abs(n - stated), n < stated))
        return next((n for n in nearest if self.fits(wanted, n)), None)

    def fits(self, wanted: list[bytes], position: int) -> bool:
        """Return True if the lines are there, and no hunk produced any of them.

        git also takes the line ``d`` for the beginning of ``d\\n``, and joins the next line to it.
        """
        end = position + len(wanted)
        return self.lines[position:end] == wanted and not any(self.patched[position:end])


def _fit_hunk(path: str, file: PatchedLines, hunk: Hunk) -> HunkFit:
    """Return how a hunk fits, and apply it if it does."""
    leading, trailing = hunk.context()
    for fuzz in range(min(MAX_FUZZ, max(leading, trailing)) + 1):
        head, tail = min(fuzz, leading), min(fuzz, trailing)
        position = file.find(hunk, head, tail)
        if position is not None:
            new = hunk.new_lines()[head : hunk.new_count - tail]
            replaced = slice(position, position + hunk.old_count - head - tail)
            file.lines[replaced], file.patched[replaced] = new, b"\1" * len(new)
            offset = position - head - max(0, hunk.new_start - 1)
            return HunkFit(path, hunk.line, "fuzz" if fuzz else "offset" if offset else "exact", offset, fuzz)
        if not fuzz and file.find(hunk.reversed()) is not None:
            return HunkFit(path, hunk.line, "applied")
    return HunkFit(path, hunk.line, "does-not-apply")
