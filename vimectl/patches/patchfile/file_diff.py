"""Describe the contents of a patch file: a ``FileDiff`` per file, with its hunks and line numbers.

The classes are tuples because every patch command defines them: as frozen dataclasses they take 3 ms more.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from vime_runtime.spec.errors import UsageError

DiffAction = Literal["modify", "create", "delete", "rename", "copy"]


class Defect(NamedTuple):
    """A problem at a line of a patch file. ``rule`` is a name in ``rules.toml``.

    ``message`` is empty where the meaning of the rule says all. ``fatal``: git refuses to read the file.
    """

    line: int
    rule: str
    message: str = ""
    fatal: bool = False


class MalformedDiff(ValueError):
    """Text that git refuses to read."""

    def __init__(self, line: int, rule: str, message: str = "") -> None:
        super().__init__(message)
        self.defect = Defect(line, rule, message, fatal=True)


class PatchTooLarge(UsageError):
    """A patch file, or a series, is larger than any of source files."""


class Hunk(NamedTuple):
    """One ``@@`` hunk, at ``line`` of the patch file.

    Starts count from 1. For an empty range, the start is the line before it. ``content`` has the sign and
    the text of each line; the text has a line feed unless the file has none there.
    """

    line: int
    old_start: int
    old_count: int
    new_start: int
    new_count: int
    content: tuple[tuple[str, bytes], ...]

    @property
    def begin(self) -> int:
        """Return the index, from 0, of the first old line; of an empty range, where it is."""
        return self.old_start - (self.old_count > 0)

    def old_lines(self) -> list[bytes]:
        """Return context and removed lines: the text that the hunk replaces."""
        return [text for sign, text in self.content if sign != "+"]

    def new_lines(self) -> list[bytes]:
        """Return context and added lines: the text that the hunk produces."""
        return [text for sign, text in self.content if sign != "-"]

    def context(self) -> tuple[int, int]:
        """Return the number of leading and of trailing context lines."""
        signs = "".join(sign for sign, _ in self.content)
        return len(signs) - len(signs.lstrip(" ")), len(signs) - len(signs.rstrip(" "))

    def reversed(self) -> Hunk:
        """Return the hunk that undoes this one."""
        signs = {"-": "+", "+": "-", " ": " "}
        content = tuple((signs[sign], text) for sign, text in self.content)
        return Hunk(self.line, self.new_start, self.new_count, self.old_start, self.old_count, content)

    def line_of(self, number: int) -> int:
        """Return the line of the patch file that has the text ``content[number]``."""
        marks = sum(not text.endswith(b"\n") for _, text in self.content[:number])
        return self.line + 1 + number + marks


class BinaryData(NamedTuple):
    """One half of a `GIT binary patch`: the new content, or a delta that produces it from the old.

    ``size`` is the number of bytes of ``data`` or of the new content, whichever is larger.
    """

    method: Literal["literal", "delta"]
    data: bytes
    size: int


class FileDiff(NamedTuple):
    """The changes to one file.

    ``old_path`` is None for a created file, ``new_path`` for a deleted one. Modes are in git's notation
    (``100644``). Blob ids are copied from the ``index`` line and are often abbreviated. None: not stated.
    ``binary`` is None for text, and empty when the data is missing; its second half is the reverse patch.
    ``may_create``: a diff without git's headers whose old range is empty creates the file if it does not
    exist or is empty.
    """

    line: int
    action: DiffAction
    old_path: str | None
    new_path: str | None
    old_mode: str | None = None
    new_mode: str | None = None
    old_blob: str | None = None
    new_blob: str | None = None
    hunks: tuple[Hunk, ...] = ()
    binary: tuple[BinaryData, ...] | None = None
    may_create: bool = False

    @property
    def path(self) -> str:
        """Return the path to use in messages."""
        return self.new_path or self.old_path or "?"

    @property
    def has_full_ids(self) -> bool:
        """Return True if the blob ids are stated and not abbreviated."""
        return len(self.old_blob or "") == len(self.new_blob or "") == 40

    @property
    def binary_size(self) -> int:
        """Return the bytes of the binary data, unpacked."""
        return sum(half.size for half in self.binary or ())


class PatchFile(NamedTuple):
    """A patch file: its text without a byte-order mark, and ``header``, the text before the first diff.

    ``strip`` is the stated number of leading folders to strip from names, or None: as git guesses.
    """

    text: bytes
    header: bytes
    diffs: tuple[FileDiff, ...]
    defects: tuple[Defect, ...]
    strip: int | None = None
