"""Read a patch file as git does, and report the lines that git would refuse or silently drop.

After a defect, reading continues at the next diff, so that one pass finds them all. To use a patch, read it
with ``rules.parse_valid``.
"""

from __future__ import annotations

import errno
import os
import re
from io import BytesIO
from pathlib import Path

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.regular_files import read_regular

from vimectl.patches.patchfile import binary, hunks, names
from vimectl.patches.patchfile.file_diff import (
    BinaryData,
    Defect,
    FileDiff,
    Hunk,
    MalformedDiff,
    PatchFile,
    PatchTooLarge,
)
from vimectl.patches.patchfile.header import is_field, read_git_header, read_plain_header

# Patches of source files are kilobytes. These bound the memory and time that reading one can take.
LARGEST = 8 * 1024 * 1024
MOST_LINES = 200_000
BOM = b"\xef\xbb\xbf"

_DIFF = b"diff --git "
_COMBINED = (b"diff --cc ", b"diff --combined ")
_CONTEXT = b"***************"
_STARTS = (_DIFF, b"--- ", b"@@ -", *_COMBINED, _CONTEXT, b"Binary files ", b"Files ")
_BARE_BINARY = re.compile(rb"(?:Binary files|Files) .* differ\n")
_CONTEXT_RANGE = re.compile(rb"\*\*\* \d+(?:,\d+)? \*\*\*\*")


def load(path: Path) -> bytes:
    """Return the bytes of a patch file. Raises PatchTooLarge, or UsageError when it is unreadable."""
    try:
        data = read_regular(path, LARGEST)
    except OSError as e:
        if e.errno == errno.EFBIG:
            raise _too_large(path) from e
        raise UsageError(f"{path}: cannot be read: {e.strerror}", "name a readable patch file") from e
    if data.count(b"\n") > MOST_LINES:
        raise _too_large(path)
    return data


def _too_large(path: Path) -> PatchTooLarge:
    hint = "split it, or leave out what is not a patch of source files"
    return PatchTooLarge(f"{path}: more than {LARGEST >> 20} MiB or {MOST_LINES} lines", hint)


def parse(data: bytes, strip: int | None = None) -> PatchFile:
    """Parse the text of a patch file. Raises nothing; problems are in ``defects``.

    ``strip`` is the number of leading folders to strip from names. None: as git guesses, 1 unless a diff
    without git's headers names a file in no folder.
    """
    text = data.removeprefix(BOM)
    reader = _Reader(text, strip)
    reader.run()
    defects = sorted(reader.defects, key=lambda defect: defect.line)
    if text is not data:
        defects.insert(0, Defect(1, "byte-order-mark"))
    header = b"".join(reader.lines[: reader.header_end])
    return PatchFile(text, header, tuple(reader.diffs), tuple(defects), strip)


class _Reader:
    """``at`` is the index of the current line in ``lines``, which keep their line feeds."""

    def __init__(self, text: bytes, strip: int | None) -> None:
        self.lines = BytesIO(text).readlines()  # a carriage return is content
        self.at = 0
        self.strip = strip
        self.diffs: list[FileDiff] = []
        self.defects: list[Defect] = []
        self.header_end = len(self.lines)
        self.unpacked = 0
        # The name in a `diff --git` line without a diff, and the index of that defect.
        self._skipped: tuple[str | None, int] = None, 0

    def report(self, line: int, rule: str, message: str = "", fatal: bool = False) -> None:
        self.defects.append(Defect(line, rule, message, fatal))

    def run(self) -> None:
        """Read diffs up to the end of the file."""
        foreign = False
        while self._seek():
            if self._line().startswith(_DIFF) or self._is_plain_diff():
                self._read_diff()
                continue
            if self._line().startswith(b"@@ -"):
                if hunks.ranges(self._line()):
                    self.report(self.at + 1, "orphan-hunk", fatal=True)
            elif rule := self._foreign_rule():
                foreign = True
                self.report(self.at + 1, rule)
            self.at += 1
        if not (self.diffs or foreign or any(defect.fatal for defect in self.defects)):
            self.report(1, "no-diff", fatal=True)

    def _line(self, after: int = 0) -> bytes:
        """Return the current line or one after it; empty after the end."""
        return self.lines[self.at + after] if self.at + after < len(self.lines) else b""

    def _seek(self) -> bool:
        """Move to the first line from here that can start something. Return False at the end."""
        while self.at < len(self.lines) and not self.lines[self.at].startswith(_STARTS):
            self.at += 1
        return self.at < len(self.lines)

    def _is_plain_diff(self) -> bool:
        """Return True at the ``---`` line of a diff. The first hunk may be cut off after ``@@ -``."""
        following = self._line(1).startswith(b"+++ ") and self._line(2).startswith(b"@@ -")
        return following and self._line().startswith(b"--- ")

    def _foreign_rule(self) -> str | None:
        """Return the rule about a diff at the current line that git passes over silently."""
        if self._line().startswith(_COMBINED):
            return "combined-diff"
        if self._line().startswith(_CONTEXT) and _CONTEXT_RANGE.match(self._line(1)):
            return "context-diff"
        return "binary-without-data" if _BARE_BINARY.fullmatch(self._line()) else None

    def _read_diff(self) -> None:
        start, git = self.at, self._line().startswith(_DIFF)
        if self.strip is None and not git:
            new = self._line(1)[4:].rstrip(b"\n")
            # git takes a name without any folder for -p0, also in all diffs that follow.
            if not names.is_null(new) and b"/" not in names.written_name(new, plain_diff=True):
                self.strip = 0
        strip = 1 if self.strip is None else self.strip
        (skipped, defect), self._skipped = self._skipped, (None, 0)
        try:
            found, self.at = (read_git_header if git else read_plain_header)(self.lines, start, strip)
        except MalformedDiff as e:
            self.defects.append(e.defect)
            self.at = start + 1
            while is_field(self._line()):
                self.at += 1
            while self._line().startswith(b"@@ -"):
                self.at = hunks.body_end(self.lines, self.at + 1)
            return
        if self.at == start + 1:  # git skips it
            self._skipped = found.new_path, len(self.defects)
            self.report(self.at, "empty-diff")
            return
        if skipped and skipped in (found.old_path, found.new_path):
            del self.defects[defect]  # the diff is here
        self.header_end = min(self.header_end, start)
        self._check_names(start, strip)
        self._finish(found, git)

    def _check_names(self, start: int, strip: int) -> None:
        """Report unusual names before their folders are stripped."""
        folders, number = set(), 0
        for number, line in enumerate(self.lines[start : self.at], start + 1):
            name = line[4:].rstrip(b"\n")
            if not line.startswith((b"--- ", b"+++ ")) or names.is_null(name):
                continue
            name = names.written_name(name)
            folders.add(name.partition(b"/")[0])
            if name.startswith(b"/") and self.strip is None:
                message = f"{os.fsdecode(name)!r} is an absolute path: -p states how much of it to strip"
                self.report(number, "absolute-path", message)
        if strip and len(folders) == 1 and not folders & {b"", b"a", b"b"}:
            (folder,) = map(os.fsdecode, folders)
            self.report(number, "no-prefix", f"{folder!r} is stripped from the names; -p0 keeps it")

    def _finish(self, diff: FileDiff, git: bool) -> None:
        """Read the hunks or the binary data below a header."""
        read, whole = self._read_hunks()
        halves: tuple[BinaryData, ...] | None = None
        if not read and whole:
            if self._line() == b"GIT binary patch\n":
                try:
                    left = binary.LARGEST_BINARY - self.unpacked
                    halves, self.at = binary.read_binary(self.lines, self.at + 1, left)
                    self.unpacked += sum(half.size for half in halves)
                except binary.CorruptBinary as e:
                    # git silently stops reading here, and applies the diffs before.
                    self.report(e.at + 1, "corrupt-binary", str(e), fatal=not self.diffs)
                    self.at = len(self.lines)
                    return
            elif _BARE_BINARY.fullmatch(self._line()):
                self.report(self.at + 1, "binary-without-data")
                halves = ()
                self.at += 1
            elif git and diff.action == "modify" and len({diff.old_mode, diff.new_mode} - {None}) < 2:
                self.report(diff.line, "empty-diff", fatal=True)
                return
        has_old = any(hunk.old_count for hunk in read)
        if diff.action == "create" and has_old:
            self.report(diff.line, "created-from-something", fatal=True)
        if diff.action == "delete" and any(hunk.new_count for hunk in read):
            self.report(diff.line, "deleted-leaves-something", fatal=True)
        may_create = diff.may_create and not has_old and len(read) <= 1
        self.diffs.append(diff._replace(hunks=read, binary=halves, may_create=may_create))

    def _read_hunks(self) -> tuple[tuple[Hunk, ...], bool]:
        """Return the hunks, and True if none of them was broken."""
        read, whole = [], True
        while self._line().startswith(b"@@ -"):
            start = self.at
            if self._line() == b"@@ -":  # too short for git to be a hunk
                self.report(start + 1, "truncated", "the file ends where a hunk begins")
                break
            try:
                hunk, self.at = hunks.read_hunk(self.lines, start)
            except MalformedDiff as e:
                whole = False
                self.defects.append(e.defect)
                self.at += 1
                while self._seek() and self._line().startswith(b"--- ") and not self._is_plain_diff():
                    self.at += 1
            else:
                read.append(hunk)
                self._report_surplus(start)
        return tuple(read), whole

    def _report_surplus(self, start: int) -> None:
        """Report lines after the hunk's end that look like part of it: git drops them silently."""
        end = hunks.body_end(self.lines, self.at)
        surplus = self.lines[self.at : end]
        if surplus and surplus[0].startswith(b"\\"):
            self.report(self.at + 1, "newline-mark")
        fatal = bool(surplus) and end < len(self.lines) and hunks.ranges(self.lines[end]) is not None
        if fatal or any(line.startswith((b"+", b"-")) for line in surplus):
            self.report(start + 1, "hunk-count", hunks.count_message(self.lines, start), fatal)
        elif any(line.strip() for line in surplus):
            self.report(start + 1, "surplus-context")
        self.at = end
