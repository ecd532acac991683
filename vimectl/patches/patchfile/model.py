"""What a patch file says: one ``FileDiff`` for each file, with its hunks and the line each thing is on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

Action = Literal["modify", "create", "delete", "rename", "copy"]
SYMLINK = "120000"


@dataclass(frozen=True, slots=True)
class Defect:
    """Something wrong at a line of a patch file. ``rule`` is a name of ``rules.toml``.

    ``fatal`` are those for which git too refuses to read the file.
    """

    line: int
    rule: str
    message: str
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Hunk:
    """One ``@@`` hunk: ``line`` is its line in the patch file, ``body`` the text of its lines as they are.

    Starts count from 1; a range of no lines names the line after which it lies.
    """

    line: int
    old_start: int
    old_count: int
    new_start: int
    new_count: int
    body: bytes

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """Yield (sign, content) of each line; the content has its line end if the file has one there."""
        sign, content = "", b""
        for raw in BytesIO(self.body):  # splits at line feeds only: a carriage return is content
            if raw.startswith(b"\\"):  # "No newline at end of file" is said of the line above
                content = content.removesuffix(b"\n")
                continue
            if sign:
                yield sign, content
            # Some mailers and diffs leave an empty context line wholly empty.
            sign, content = (" ", b"\n") if raw == b"\n" else (chr(raw[0]), raw[1:])
        if sign:
            yield sign, content

    def side(self, sign: str) -> list[bytes]:
        """The lines that the hunk has before (``-``) or after (``+``)."""
        return [content for found, content in self.lines() if found in (" ", sign)]

    def context(self) -> tuple[int, int]:
        """How many lines of context the hunk begins and ends with."""
        signs = "".join(sign for sign, _ in self.lines())
        return len(signs) - len(signs.lstrip(" ")), len(signs) - len(signs.rstrip(" "))


@dataclass(frozen=True, slots=True)
class BinaryData:
    """One half of a `GIT binary patch`: the new content, or a delta that makes it from the old."""

    method: Literal["literal", "delta"]
    data: bytes


@dataclass(frozen=True, slots=True)
class FileDiff:
    """What is done to one file.

    ``old_path`` is None for a created file, ``new_path`` for a deleted one. Modes are git's text
    (``100644``), blob ids as the ``index`` line has them, often abbreviated; None where nothing is said.
    ``binary`` is None for text, and empty when the file is said to differ and the data is missing; its second
    half leads back. ``may_create``: a diff without git's headers, whose old side is empty: it creates the
    file unless it is there and empty.
    """

    line: int
    action: Action
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
        """The file as messages name it."""
        return self.new_path or self.old_path or "?"


@dataclass(frozen=True, slots=True)
class PatchFile:
    """A whole patch file. ``header`` is the text before the first diff (at most 64 KiB of it)."""

    header: bytes
    diffs: tuple[FileDiff, ...]
    defects: tuple[Defect, ...]
