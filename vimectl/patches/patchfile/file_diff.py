"""Describe the contents of a patch file: a ``FileDiff`` per file, with its hunks and line numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

DiffAction = Literal["modify", "create", "delete", "rename", "copy"]
SYMLINK = "120000"


@dataclass(frozen=True, slots=True)
class Defect:
    """A problem at a line of a patch file. ``rule`` is a name in ``rules.toml``.

    ``fatal``: git refuses to read the file as well.
    """

    line: int
    rule: str
    message: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Hunk:
    """One ``@@`` hunk: ``line`` is its line in the patch file, ``body`` the raw text of its lines.

    Starts count from 1. For an empty range, the start is the line before it.
    """

    line: int
    old_start: int
    old_count: int
    new_start: int
    new_count: int
    body: bytes

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Yield (sign, content) of each line; the content keeps its line feed if the file has one there."""
        sign, content = "", b""
        for raw in BytesIO(self.body):  # splits at line feeds only: a carriage return is content
            if raw.startswith(b"\\"):  # "No newline at end of file" refers to the previous line
                content = content.removesuffix(b"\n")
                continue
            if sign:
                yield sign, content
            # Some mailers and diff programs strip an empty context line to nothing.
            sign, content = (" ", b"\n") if raw == b"\n" else (chr(raw[0]), raw[1:])
        if sign:
            yield sign, content

    def old_lines(self) -> list[bytes]:
        """Return context and removed lines: the text that the hunk replaces."""
        return [content for sign, content in self.lines() if sign in (" ", "-")]

    def new_lines(self) -> list[bytes]:
        """Return context and added lines: the text that the hunk produces."""
        return [content for sign, content in self.lines() if sign in (" ", "+")]

    def context(self) -> tuple[int, int]:
        """Return the number of leading and of trailing context lines."""
        signs = "".join(sign for sign, _ in self.lines())
        return len(signs) - len(signs.lstrip(" ")), len(signs) - len(signs.rstrip(" "))

    def reversed(self) -> Hunk:
        """Return the hunk that undoes this one."""
        signs = {b"-": b"+", b"+": b"-"}
        body = b"".join(signs.get(line[:1], line[:1]) + line[1:] for line in BytesIO(self.body))
        return Hunk(self.line, self.new_start, self.new_count, self.old_start, self.old_count, body)


@dataclass(frozen=True, slots=True)
class BinaryData:
    """One half of a `GIT binary patch`: the new content, or a delta that produces it from the old."""

    method: Literal["literal", "delta"]
    data: bytes


@dataclass(frozen=True, slots=True)
class FileDiff:
    """The changes to one file.

    ``old_path`` is None for a created file, ``new_path`` for a deleted one. Modes are in git's notation
    (``100644``). Blob ids are copied from the ``index`` line and are often abbreviated. None: not stated.
    ``binary`` is None for text, and empty when the data is missing; its
    second half is the reverse patch. ``may_create``: a diff without git's headers whose old range is empty
    creates the file if it does not exist or is empty.
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


@dataclass(frozen=True, slots=True)
class PatchFile:
    """A patch file: all of its text, and in ``header`` that before the first diff (at most 64 KiB of it)."""

    text: bytes
    header: bytes
    diffs: tuple[FileDiff, ...]
    defects: tuple[Defect, ...]
