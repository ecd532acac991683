"""Read a patch file as git does, and report the lines that git would refuse or silently drop.

After a defect, reading continues at the next diff, so that one pass finds them all. To use a patch, read it
with ``rules.read_valid``.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile import binary, hunks, names
from vimectl.patches.patchfile.file_diff import BinaryData, Defect, FileDiff, Hunk, MalformedDiff, PatchFile
from vimectl.patches.patchfile.header import DiffHeader, is_field, read_git_header, read_plain_header

# Patches of source files are kilobytes. These bound the memory and time that reading one can take.
LARGEST = 8 * 1024 * 1024
MOST_LINES = 300_000
MOST_HUNKS = 20_000
MOST_DEFECTS = 1_000
LONGEST_HEADER = 64 * 1024
BOM = b"\xef\xbb\xbf"

_DIFF = b"diff --git "
_COMBINED = (b"diff --cc ", b"diff --combined ")
_CONTEXT = b"***************"
_STARTS = (_DIFF, b"--- ", b"@@ -", *_COMBINED, _CONTEXT, b"Binary files ", b"Files ")
# Rules about diffs that git passes over silently.
_FOREIGN = ("combined-diff", "context-diff", "binary-without-data")
# Git ignores a diff with fewer bytes after its first line.
_SHORTEST = 6
_BARE_BINARY = re.compile(rb"(?:Binary files|Files) .* differ\n")
_CONTEXT_RANGE = re.compile(rb"\*\*\* \d+(?:,\d+)? \*\*\*\*")


class PatchTooLarge(UsageError):
    """A file is larger than any patch of source files."""


class _StopReading(Exception):
    """A bound is reached; the rest of the file is not read."""


def load(path: Path) -> bytes:
    """Return the bytes of a patch file. Raises PatchTooLarge, or UsageError when it is unreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e.strerror}", "name a readable patch file") from e
    if len(data) > LARGEST:
        raise PatchTooLarge(f"{path}: larger than {LARGEST >> 20} MiB, which no patch of source files is")
    return data


def parse(data: bytes, strip: int | None = None) -> PatchFile:
    """Parse the text of a patch file. Raises nothing; problems are in ``defects``.

    ``strip`` is the number of leading folders to strip from names. None: as git guesses, 1 unless a diff
    without git's headers names a file in no folder.
    """
    text = data.removeprefix(BOM)
    reader = _Reader(text, strip)
    with suppress(_StopReading):
        if text is not data:
            reader.report(
                1, "byte-order-mark", "a mark before the first line, which other programs then miss"
            )
        reader.run()
    defects = sorted(reader.defects, key=lambda defect: defect.line)
    header = b"".join(reader.lines[: reader.header_end])[:LONGEST_HEADER]
    return PatchFile(text, header, tuple(reader.diffs), tuple(defects), strip)


class _Reader:
    """``at`` is the index of the current line in ``lines``, which keep their line feeds."""

    def __init__(self, text: bytes, strip: int | None) -> None:
        self.too_long = text.count(b"\n") > MOST_LINES
        self.lines = [] if self.too_long else BytesIO(text).readlines()  # a carriage return is content
        self.at = 0
        self.strip = strip
        self.diffs: list[FileDiff] = []
        self.defects: list[Defect] = []
        self.header_end = len(self.lines)
        self._hunks = 0

    def report(self, line: int, rule: str, message: str, fatal: bool = False) -> None:
        self.defects.append(Defect(line, rule, message, fatal))
        if len(self.defects) >= MOST_DEFECTS:
            message = f"{MOST_DEFECTS} defects: the rest of the file is not read"
            self.defects.append(Defect(line, "too-large", message, fatal=True))
            raise _StopReading

    def run(self) -> None:
        """Read diffs up to the end of the file."""
        if self.too_long:
            self.report(1, "too-large", f"more than {MOST_LINES} lines", fatal=True)
            return
        stale = None
        while self._seek():
            line = self._line()
            if line.startswith(b"@@ -"):
                if hunks.ranges(line):
                    self.report(self.at + 1, "orphan-hunk", "a hunk that belongs to no file", fatal=True)
            elif line.startswith((*_COMBINED, _CONTEXT, b"Binary", b"Files")):
                self._report_foreign(line)
            elif self._left() < _SHORTEST:
                if line.startswith(_DIFF):
                    self.report(self.at + 1, "empty-diff", "the file ends where a diff begins")
            elif line.startswith(_DIFF) or self._is_plain_diff():
                stale = self._read_diff(stale)
                continue
            self.at += 1
        if not self.diffs and not any(one.fatal or one.rule in _FOREIGN for one in self.defects):
            self.report(1, "no-diff", "there is no diff in this file", fatal=True)

    def _line(self, after: int = 0) -> bytes:
        """Return the current line or one after it; empty after the end."""
        return self.lines[self.at + after] if self.at + after < len(self.lines) else b""

    def _left(self) -> int:
        """Return the number of bytes after the current line, counted up to a few lines."""
        return sum(map(len, self.lines[self.at + 1 : self.at + 1 + _SHORTEST]))

    def _seek(self) -> bool:
        """Move to the first line from here that can start something. Return False at the end."""
        while self.at < len(self.lines) and not self.lines[self.at].startswith(_STARTS):
            self.at += 1
        return self.at < len(self.lines)

    def _is_plain_diff(self) -> bool:
        """Return True at the ``---`` line of a diff. The first hunk may be cut off after ``@@ -``."""
        return self._line(1).startswith(b"+++ ") and self._line(2).startswith(b"@@ -")

    def _report_foreign(self, line: bytes) -> None:
        """Report diffs that git passes over silently, at their first line."""
        if line.startswith(_COMBINED):
            message = (
                "a combined diff of a merge cannot be applied; `git diff PARENT MERGE` makes one that can"
            )
            self.report(self.at + 1, "combined-diff", message)
        elif _CONTEXT_RANGE.match(self._line(1)):
            self.report(
                self.at + 1, "context-diff", "a context diff; `diff -u` makes one that can be applied"
            )
        elif _BARE_BINARY.fullmatch(line):
            message = "binary files differ, but the data is missing; `git diff --binary` includes it"
            self.report(self.at + 1, "binary-without-data", message)

    def _read_diff(self, stale: DiffHeader | None) -> DiffHeader | None:
        """Read one diff; return its header when git skips it because it has no other lines."""
        start, git = self.at, self._line().startswith(_DIFF)
        if self.strip is None and not git and not names.has_folder(self._line(1)[4:].rstrip(b"\n")):
            self.strip = 0  # git applies the guess to all diffs that follow, too
        strip = 1 if self.strip is None else self.strip
        try:
            if git:
                found, self.at = read_git_header(self.lines, start, strip, stale)
            else:
                found, self.at = read_plain_header(self.lines, start, strip, stale), start + 2
        except MalformedDiff as e:
            self.report(e.line, e.rule, str(e), fatal=True)
            self.at = start + 1
            while is_field(self._line()):
                self.at += 1
            while self._line().startswith(b"@@ -"):
                self.at = hunks.body_end(self.lines, self.at + 1)
            return None
        if git and self.at == start + 1:
            self.report(self.at, "empty-diff", "nothing follows this line: the diff is missing or cut off")
            return DiffHeader(self.at, strip, found.default_name, found.default_name)
        if stale and stale.new_name in (found.old_name, found.new_name):  # the diff is here
            self.defects = [one for one in self.defects if (one.rule, one.line) != ("empty-diff", stale.line)]
        self._check_names(start, strip)
        self._finish(found, git)
        return None

    def _check_names(self, start: int, strip: int) -> None:
        """Record where the first diff starts, and report unusual names before their folders are stripped."""
        if not self.diffs:
            self.header_end = min(self.header_end, start)
        first_folders = set()
        for number, line in enumerate(self.lines[start : self.at], start + 1):
            if not line.startswith((b"--- ", b"+++ ")) or names.is_null(line[4:].rstrip(b"\n")):
                continue
            written = names.written_name(line[4:].rstrip(b"\n"))
            first_folders.add(written.partition(b"/")[0])
            if written.startswith(b"/") and self.strip is None:
                message = f"{os.fsdecode(written)!r} is an absolute path: -p states how much of it to strip"
                self.report(number, "absolute-path", message)
            elif (
                strip
                and line.startswith(b"+++ ")
                and len(first_folders) == 1
                and not first_folders & {b"", b"a", b"b"}
            ):
                message = (
                    f"{os.fsdecode(written)!r}: the first folder is stripped, and both names have it (-p0?)"
                )
                self.report(number, "no-prefix", message)

    def _finish(self, found: DiffHeader, git: bool) -> None:
        """Read the hunks or the binary data below a header."""
        read, whole = self._read_hunks()
        halves: tuple[BinaryData, ...] | None = None
        if not read and whole:
            if self._line() == b"GIT binary patch\n":
                halves = self._read_binary()
            elif _BARE_BINARY.fullmatch(self._line()):
                self._report_foreign(self._line())
                halves = ()
                self.at += 1
            elif git and not found.changes_more_than_content:
                self.report(found.line, "empty-diff", "a diff that changes nothing", fatal=True)
                return
        old = sum(hunk.old_count for hunk in read)
        new = sum(hunk.new_count for hunk in read)
        if found.created is None and (old or len(read) > 1):
            found.created = False
        if found.created and old:
            self.report(found.line, "created-from-something", "a created file has old lines", fatal=True)
        if found.deleted and new:
            self.report(found.line, "deleted-leaves-something", "a deleted file has new lines", fatal=True)
        self.diffs.append(found.diff(read, halves))

    def _read_hunks(self) -> tuple[tuple[Hunk, ...], bool]:
        """Return the hunks, and True if none of them was broken."""
        spans, whole = [], True
        while self._line().startswith(b"@@ -"):
            start = self.at
            if self._line() == b"@@ -":  # too short for git to be a hunk
                self.report(start + 1, "truncated", "the file ends where a hunk begins")
                break
            self._hunks += 1
            if self._hunks > MOST_HUNKS:
                self.report(start + 1, "too-large", f"more than {MOST_HUNKS} hunks", fatal=True)
                raise _StopReading
            try:
                self.at = hunks.find_end(self.lines, start)
            except MalformedDiff as e:
                whole = False
                self.report(e.line, e.rule, str(e), fatal=True)
                self._skip_rest()
                continue
            spans.append((start, self.at))
            self._report_surplus(start)
        return hunks.read_hunks(self.lines, spans), whole

    def _report_surplus(self, start: int) -> None:
        """Report lines after the hunk's end that look like part of it: git drops them silently."""
        end = hunks.body_end(self.lines, self.at)
        surplus = self.lines[self.at : end]
        if surplus and surplus[0].startswith(b"\\"):
            message = "a mark of a missing newline that is malformed or follows no line"
            self.report(self.at + 1, "newline-mark", message)
        fatal = bool(surplus) and end < len(self.lines) and hunks.ranges(self.lines[end]) is not None
        if fatal or any(line.startswith((b"+", b"-")) for line in surplus):
            message = hunks.count_message(self.lines, start)
            self.report(start + 1, "hunk-count", message, fatal)
        elif any(line.strip() for line in surplus):
            message = f"{hunks.count_message(self.lines, start)}: git drops the rest, which changes nothing"
            self.report(start + 1, "surplus-context", message)
        self.at = end

    def _skip_rest(self) -> None:
        """Move past a broken hunk, to the next line that can start a hunk or diff."""
        self.at += 1
        while self._seek() and self._line().startswith(b"--- ") and not self._is_plain_diff():
            self.at += 1

    def _read_binary(self) -> tuple[BinaryData, ...]:
        try:
            halves, self.at = binary.read_binary(self.lines, self.at + 1)
        except binary.CorruptBinary as e:
            # git silently stops reading here, and applies the diffs before.
            self.report(e.at + 1, "corrupt-binary", str(e), fatal=not self.diffs)
            raise _StopReading from e
        return halves
