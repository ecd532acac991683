"""Read a patch file as git does, and report the lines that git would refuse or silently drop.

After a defect, reading continues at the next diff, so that one pass finds them all. To use a patch, read it
with ``rules.read_valid``.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile import body, names
from vimectl.patches.patchfile.cursor import LineCursor, MalformedDiff
from vimectl.patches.patchfile.file_diff import BinaryData, Defect, FileDiff, Hunk, PatchFile
from vimectl.patches.patchfile.header import DiffHeader, read_git_header, read_plain_header

# Patches of source files are kilobytes. These bound the memory and time that reading one can take.
LARGEST = 8 * 1024 * 1024
MOST_HUNKS = 20_000
MOST_DEFECTS = 1_000
LONGEST_HEADER = 64 * 1024

_STARTS = re.compile(rb"^(?:diff --git |--- |@@ -)", re.MULTILINE)
# Git ignores anything shorter.
_SHORTEST = 6
_BARE_BINARY = re.compile(rb"(?:Binary files|Files) .* differ$")


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


def parse(data: bytes) -> PatchFile:
    """Parse the text of a patch file. Raises nothing; problems are in ``defects``."""
    reader = _Reader(data)
    with suppress(_StopReading):
        reader.run()
    defects = sorted(reader.defects, key=lambda defect: defect.line)
    header = data[: min(reader.header_end, LONGEST_HEADER)]
    return PatchFile(data, header, tuple(reader.diffs), tuple(defects))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.cursor = LineCursor(data)
        self.diffs: list[FileDiff] = []
        self.defects: list[Defect] = []
        self.header_end = len(data)
        self._hunks = 0

    def report(self, line: int, rule: str, message: str, fatal: bool = False) -> None:
        self.defects.append(Defect(line, rule, message, fatal))
        if len(self.defects) >= MOST_DEFECTS:
            message = f"{MOST_DEFECTS} defects: the rest of the file is not read"
            self.defects.append(Defect(line, "too-large", message, fatal=True))
            raise _StopReading

    def run(self) -> None:
        """Read diffs up to the end of the file."""
        cursor, stale = self.cursor, None
        while True:
            cursor.seek(_STARTS)
            if not cursor.more:
                break
            if cursor.line.startswith(b"@@ -"):
                self._report_orphan()
            elif cursor.left < _SHORTEST:
                if cursor.line.startswith(b"diff --git "):
                    self.report(cursor.number, "empty-diff", "the file ends where a diff begins")
                cursor.advance()
            elif cursor.line.startswith(b"diff --git ") or self._is_plain_diff():
                stale = self._read_diff(stale)
            else:
                cursor.advance()
        if not self.diffs and not any(defect.fatal for defect in self.defects):
            self.report(1, "no-diff", "there is no diff in this file", fatal=True)

    def _report_orphan(self) -> None:
        cursor = self.cursor
        if body.is_hunk(cursor.line) and cursor.whole:
            self.report(cursor.number, "orphan-hunk", "a hunk that belongs to no file", fatal=True)
        cursor.advance()

    def _is_plain_diff(self) -> bool:
        first, second = self.cursor.following()
        return first.startswith(b"+++ ") and second.startswith(b"@@ -") and self.cursor.left >= len(first) + 4

    def _read_diff(self, stale: DiffHeader | None) -> DiffHeader | None:
        """Read one diff; return its header when git skips it because it has no other lines."""
        cursor = self.cursor
        start, line, git = cursor.start, cursor.number, cursor.line.startswith(b"diff --git ")
        try:
            found = read_git_header(cursor, stale) if git else read_plain_header(cursor, stale)
        except MalformedDiff as e:
            self.report(cursor.number if git else line, e.rule, str(e), fatal=True)
            return None
        if git and cursor.number == line + 1:
            self.report(line, "empty-diff", "nothing follows this line: the diff is missing or cut off")
            return DiffHeader(line, found.default_name, found.default_name)
        self._check_names(start)
        self._finish(found, git)
        return None

    def _check_names(self, start: int) -> None:
        """Record where the first diff starts, and report unusual names before the prefix is stripped."""
        if not self.diffs:
            self.header_end = min(self.header_end, start)
        lines = self.cursor.since(start).split(b"\n")
        first_folders = set()
        for number, line in enumerate(lines, self.cursor.number - len(lines) + 1):
            if not line.startswith((b"--- ", b"+++ ")) or names.is_null(line[4:]):
                continue
            written = names.raw_name(line[4:]) or b""
            first_folders.add(written.partition(b"/")[0])
            if written.startswith(b"/"):
                self.report(number, "absolute-path", f"{os.fsdecode(written)!r} is an absolute path")
            elif line.startswith(b"+++ ") and len(first_folders) == 1 and not first_folders & {b"a", b"b"}:
                message = f"{os.fsdecode(written)!r}: the first folder is stripped, and both names have it"
                self.report(number, "no-prefix", message)

    def _finish(self, found: DiffHeader, git: bool) -> None:
        """Read the hunks or the binary data below a header."""
        cursor = self.cursor
        hunks, whole = self._read_hunks()
        halves: tuple[BinaryData, ...] | None = None
        if not hunks and whole:
            if cursor.line == b"GIT binary patch" and cursor.whole:
                halves = self._read_binary()
            elif _BARE_BINARY.match(cursor.line) and cursor.whole:
                message = "binary files differ, but the data is missing"
                self.report(cursor.number, "binary-without-data", message)
                halves = ()
                cursor.advance()
            elif git and not found.changes_more_than_content:
                self.report(found.line, "empty-diff", "a diff that changes nothing", fatal=True)
                return
        old = sum(hunk.old_count for hunk in hunks)
        new = sum(hunk.new_count for hunk in hunks)
        if found.created is None and (old or len(hunks) > 1):
            found.created = False
        if found.created and old:
            self.report(found.line, "created-from-something", "a created file has old lines", fatal=True)
        if found.deleted and new:
            self.report(found.line, "deleted-leaves-something", "a deleted file has new lines", fatal=True)
        self.diffs.append(_as_diff(found, hunks, halves))

    def _read_hunks(self) -> tuple[tuple[Hunk, ...], bool]:
        """Return the hunks, and True if none of them was broken."""
        cursor, hunks, whole = self.cursor, [], True
        while cursor.line.startswith(b"@@ -"):
            if cursor.line == b"@@ -" and not cursor.whole:  # too short for git to be a hunk
                self.report(cursor.number, "truncated", "the file ends where a hunk begins")
                break
            self._hunks += 1
            if self._hunks > MOST_HUNKS:
                self.report(cursor.number, "too-large", f"more than {MOST_HUNKS} hunks", fatal=True)
                raise _StopReading
            try:
                hunk = body.read_hunk(cursor)
            except MalformedDiff as e:
                whole = False
                self.report(e.line or cursor.number, e.rule, str(e), fatal=True)
                self._skip_rest()
                continue
            hunks.append(hunk)
            self._report_surplus(hunk)
        return tuple(hunks), whole

    def _report_surplus(self, hunk: Hunk) -> None:
        """Report lines after the hunk's end that look like part of it: git drops them silently."""
        cursor = self.cursor
        start, number = cursor.start, cursor.number
        while cursor.line[:1] in (b" ", b"+", b"-") and cursor.more and not self._ends_hunks():
            cursor.advance()
        if cursor.line.startswith(b"\\"):
            message = "a mark of a missing newline that is malformed or follows no line"
            self.report(cursor.number, "newline-mark", message)
        if cursor.number > number:
            old, new = body.count_lines(hunk.body + cursor.since(start))
            stated = f"{hunk.old_count} old and {hunk.new_count} new lines"
            message = f"the @@ line states {stated}, there are {old} and {new}"
            self.report(hunk.line, "hunk-count", message, fatal=body.is_hunk(cursor.line))

    def _skip_rest(self) -> None:
        """Move past a broken hunk, to the next line that can start a hunk or diff."""
        cursor = self.cursor
        if cursor.line.startswith(b"@@ -") and not body.is_hunk(cursor.line):
            cursor.advance()
        while cursor.more:
            cursor.seek(_STARTS)
            if not cursor.line.startswith(b"--- ") or self._is_plain_diff():
                return
            cursor.advance()

    def _ends_hunks(self) -> bool:
        """Return True if a line that looks like a hunk's starts the next file or an email signature."""
        return self.cursor.line in (b"-- ", b"--") or (
            self.cursor.line.startswith(b"--- ") and self.cursor.following()[0].startswith(b"+++ ")
        )

    def _read_binary(self) -> tuple[BinaryData, ...]:
        cursor = self.cursor
        cursor.advance()
        try:
            return body.read_binary(cursor)
        except body.CorruptBinary as e:
            # git silently stops reading here, and applies the diffs before.
            self.report(cursor.number, "corrupt-binary", str(e), fatal=not self.diffs)
            raise _StopReading from e


def _as_diff(found: DiffHeader, hunks: tuple[Hunk, ...], halves: tuple[BinaryData, ...] | None) -> FileDiff:
    old, new = (None if name is None else os.fsdecode(name) for name in (found.old_name, found.new_name))
    return FileDiff(
        line=found.line,
        action=found.action,
        old_path=None if found.created else old,
        new_path=None if found.deleted else new,
        old_mode=found.old_mode,
        new_mode=found.new_mode,
        old_blob=found.old_blob,
        new_blob=found.new_blob,
        hunks=hunks,
        binary=halves,
        may_create=found.created is None,
    )
