"""Apply a patch file by git's rules to files that are only read; the changes are returned as values.

Accepts, refuses and produces what `git apply` does, without a work tree. A file in the place of a folder
cannot be detected by looking up files; writing the result fails then.

A hunk is tried at the line it states, then one line further down, one up, two down, and so on. One that
starts at line 1 must fit there, and one without trailing context must fit at the end of the file. No line
is patched twice. One rule differs from git: a context line without a line feed matches only a line without
one. Git takes the line ``d`` for the beginning of ``d\\n``, and joins the next line to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile import body
from vimectl.patches.patchfile.file_diff import SYMLINK, FileDiff, Hunk
from vimectl.patches.patchfile.names import path_problem, printable

_TYPE = 0o170000


@dataclass(frozen=True, slots=True)
class GitFile:
    """A file as git stores it. The content of a symbolic link is its target."""

    content: bytes
    mode: str = "100644"

    @property
    def blob(self) -> str:
        return blob_id(self.content)


FileLookup = Callable[[str], GitFile | None]


class PatchRefused(UsageError):
    """A patch does not apply; the message names its line and the file."""


class PatchedLines:
    """The lines of a file while hunks are applied; ``patched`` marks those that a hunk produced."""

    def __init__(self, content: bytes) -> None:
        self.lines = BytesIO(content).readlines()
        self.patched = bytearray(len(self.lines))

    def content(self) -> bytes:
        return b"".join(self.lines)

    def replace(self, match: HunkMatch) -> None:
        end = match.position + match.count
        self.lines[match.position : end] = match.lines
        self.patched[match.position : end] = b"\1" * len(match.lines)


@dataclass(frozen=True)
class HunkMatch:
    """Where a hunk fits: ``lines`` replace ``count`` lines from ``position``.

    ``offset`` is the distance in lines from the stated position, positive for further down. ``fuzz`` is the
    number of context lines that were ignored at each end.
    """

    position: int
    count: int
    lines: list[bytes]
    offset: int
    fuzz: int = 0


def find_hunk(file: PatchedLines, hunk: Hunk, max_fuzz: int = 0) -> HunkMatch | None:
    """Return where a hunk fits, or None.

    Up to ``max_fuzz`` context lines at each end may be ignored, as `patch` does.
    """
    old, new = hunk.old_lines(), hunk.new_lines()
    leading, trailing = hunk.context()
    stated = hunk.new_start - 1 if hunk.new_start else 0
    for fuzz in range(min(max_fuzz, max(leading, trailing)) + 1):
        head, tail = min(fuzz, leading), min(fuzz, trailing)
        wanted = old[head : len(old) - tail]
        at_start = not fuzz and hunk.old_start <= 1
        at_end = not fuzz and trailing == 0
        position = _find(file, wanted, stated + head, at_start, at_end)
        if position is not None:
            offset = position - stated - head
            return HunkMatch(position, len(wanted), new[head : len(new) - tail], offset, fuzz)
    return None


def _find(file: PatchedLines, wanted: list[bytes], stated: int, at_start: bool, at_end: bool) -> int | None:
    last = len(file.lines) - len(wanted)
    if at_start or at_end:
        position = 0 if at_start else last
        fits = last >= 0 and not (at_start and at_end and last) and _fits(file, wanted, position)
        return position if fits else None
    stated = min(stated, len(file.lines))
    if not wanted or _fits(file, wanted, stated):
        return stated
    # Nearest first; of two equally near, the one further down.
    starts = (n for n, line in enumerate(file.lines) if line == wanted[0] and n <= last)
    nearest = sorted(starts, key=lambda n: (abs(n - stated), n < stated))
    return next((n for n in nearest if _fits(file, wanted, n)), None)


def _fits(file: PatchedLines, wanted: list[bytes], position: int) -> bool:
    end = position + len(wanted)
    return file.lines[position:end] == wanted and not any(file.patched[position:end])


def apply_patch(diffs: Sequence[FileDiff], lookup: FileLookup) -> dict[str, GitFile | None]:
    """Return the new state of each changed path (None: removed). Raises PatchRefused."""
    application = _Application(diffs, lookup)
    results = [(diff, application.apply(diff)) for diff in diffs]
    changed: dict[str, GitFile | None] = {}
    for diff in diffs:
        if diff.old_path is not None and diff.action != "copy":
            changed[diff.old_path] = None
    for diff, file in results:
        if diff.new_path is not None:
            changed[diff.new_path] = file
    return changed


class _Application:
    """``_results`` holds the state of each path after the diffs so far, None if removed."""

    def __init__(self, diffs: Sequence[FileDiff], lookup: FileLookup) -> None:
        self._lookup = lookup
        self._results: dict[str, GitFile | None] = {}
        removing = [diff for diff in diffs if diff.action in ("delete", "rename")]
        self._removed = {diff.old_path for diff in removing}
        self._links_removed = {diff.old_path for diff in removing if diff.old_mode == SYMLINK}
        self._links_made = {diff.new_path for diff in diffs if diff.new_path and diff.new_mode == SYMLINK}

    def apply(self, diff: FileDiff) -> GitFile | None:
        """Apply one diff and return the resulting file, None for a deletion."""
        old = self._preimage(diff)
        created = diff.old_path is None or old is None
        if created or diff.action in ("rename", "copy"):
            self._check_free(diff)
        mode = self._mode(diff, old)
        for path in (None if diff.action == "copy" else diff.old_path, diff.new_path):
            if path is not None and (problem := path_problem(path)):
                raise _refused(diff, f"{path!r} {problem.what}")
        for path in (diff.new_path, None if created else diff.old_path):
            if path is not None and (link := self._link_above(path, with_created=path == diff.new_path)):
                raise _refused(diff, f"{path} is behind the symbolic link {link}")
        content = _new_content(diff, b"" if old is None else old.content)
        if diff.action == "delete" and content:
            raise _refused(diff, f"{diff.path} is deleted, but part of its content would remain")
        if diff.action in ("delete", "rename") and diff.old_path is not None:
            self._results[diff.old_path] = None
        if diff.new_path is None:
            return None
        if mode == SYMLINK and (not content or b"\0" in content):
            raise _refused(diff, f"{diff.path} would be a symbolic link to nothing")
        self._results[diff.new_path] = GitFile(content, mode)
        return self._results[diff.new_path]

    def _preimage(self, diff: FileDiff) -> GitFile | None:
        path = diff.old_path
        if path is None:
            return None
        if diff.action not in ("rename", "copy") and path in self._results:
            # Renames and copies start from the original file: their order does not matter.
            found = self._results[path]
            if found is None:
                raise _refused(diff, f"{path} was renamed or deleted earlier in this patch")
            return found
        found = self._lookup(path)
        if found is None and not diff.may_create:
            raise _refused(diff, f"there is no file {path}")
        return found

    def _check_free(self, diff: FileDiff) -> None:
        path = diff.new_path
        if path is None or self._lookup(path) is None:
            return
        removed = path in self._results and self._results[path] is None
        if not removed and not (path in self._removed and path not in self._results):
            raise _refused(diff, f"{path} exists already")

    def _mode(self, diff: FileDiff, old: GitFile | None) -> str:
        if old is None:
            return _git_mode(diff, diff.new_mode or "100644")
        stated = int(diff.old_mode or old.mode, 8)
        if (stated ^ int(old.mode, 8)) & _TYPE:
            raise _refused(diff, f"{diff.old_path} is not of the type {diff.old_mode}")
        mode = diff.new_mode or old.mode
        if diff.new_path is not None and (stated ^ int(mode, 8)) & _TYPE:
            raise _refused(diff, f"{diff.path} cannot change from type {stated:06o} to {mode}")
        return _git_mode(diff, mode)

    def _link_above(self, path: str, with_created: bool) -> str | None:
        """Return the nearest folder of a path that is a link or file, before the patch or (``with_created``)
        because of it."""
        for folder in parent_folders(path):
            if with_created and folder in self._links_made:
                return folder
            if with_created and folder in self._links_removed:
                continue
            found = self._lookup(folder)
            if found is not None and (found.mode == SYMLINK or folder not in self._removed):
                return folder
        return None


def parent_folders(path: str) -> Iterator[str]:
    """Yield the folders of a path, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _new_content(diff: FileDiff, content: bytes) -> bytes:
    if diff.binary is not None:
        return _new_binary(diff, content)
    file = PatchedLines(content)
    for hunk in diff.hunks:
        match = find_hunk(file, hunk)
        if match is None:
            raise PatchRefused(printable(f"line {hunk.line}: the hunk does not fit {diff.path}"))
        file.replace(match)
    return file.content()


def _new_binary(diff: FileDiff, content: bytes) -> bytes:
    old, new = diff.old_blob or "", diff.new_blob or ""
    if len(old) != 40 or len(new) != 40:
        raise _refused(diff, f"{diff.path} is binary, and the index line does not have the full ids")
    if diff.old_path is None and content:
        raise _refused(diff, f"{diff.path} is not empty")
    if diff.old_path is not None and blob_id(content) != old:
        raise _refused(diff, f"{diff.path} is {blob_id(content)}, not {old}")
    if not new.strip("0"):
        return b""
    if not diff.binary:
        raise _refused(diff, f"the data of {diff.path} is missing")
    try:
        result = body.apply_binary(content, diff.binary[0])
    except body.CorruptBinary as e:
        raise _refused(diff, f"{diff.path}: {e}") from e
    if blob_id(result) != new:
        raise _refused(diff, f"{diff.path} becomes {blob_id(result)}, not {new}")
    return result


def _git_mode(diff: FileDiff, mode: str) -> str:
    """Reduce a mode to what git stores: the type, and for a file the executable bit."""
    kind = int(mode, 8) & _TYPE
    if kind == 0o120000:
        return SYMLINK
    if kind != 0o100000:
        raise _refused(diff, f"{diff.path} is of type {mode}: neither a file nor a symbolic link")
    return "100755" if int(mode, 8) & 0o100 else "100644"


def _refused(diff: FileDiff, message: str) -> PatchRefused:
    return PatchRefused(printable(f"line {diff.line}: {message}"))
