"""The fenced code blocks of a page: commands with the output that the page shows, and files with a title."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELL = ("sh", "console")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+)(?P<language>\w*)(?: +title=\"(?P<title>[^\"]+)\")?")


@dataclass(frozen=True)
class CodeBlock:
    """One block: its language, its title, the number of its first line, and its lines without indentation."""

    language: str
    title: str
    first_line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class ShellCommand:
    """One command of a ``sh`` or ``console`` block, over several lines if it has continuation lines.

    ``output`` has the lines that the block shows below it; it is None in a ``sh`` block.
    """

    line: int
    text: str
    output: tuple[str, ...] | None


def code_blocks(text: str) -> Iterator[CodeBlock]:
    """Yield the fenced blocks of a Markdown text in order."""
    opened: re.Match[str] | None = None
    first = 0
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if opened is None:
            if opened := _FENCE.match(line):
                first, lines = number + 1, []
        elif line.strip() == opened["fence"]:
            yield CodeBlock(opened["language"], opened["title"] or "", first, tuple(lines))
            opened = None
        else:
            lines.append(line.removeprefix(opened["indent"]))
    if opened is not None:
        raise ValueError(f"line {first - 1}: the block has no end")


def titled_file(block: CodeBlock) -> Path | None:
    """Return the path of the file that a block shows, or None."""
    return Path(block.title) if block.title and block.language not in SHELL else None


def shell_commands(block: CodeBlock) -> list[ShellCommand]:
    """Return the commands of a ``sh`` or ``console`` block.

    A command that ends with a backslash continues on the next line. In a ``sh`` block each line is a command.
    In another block commands start with ``$ ``, their continuation with ``> ``, and the rest is output.
    """
    found: list[tuple[int, list[str], list[str]]] = []
    for number, line in enumerate(block.lines, start=block.first_line):
        continues = found and not found[-1][2] and found[-1][1][-1].endswith("\\")
        if block.language != "sh":
            if line.startswith("$ "):
                found.append((number, [line[2:]], []))
            elif found and continues:
                found[-1][1].append(line.removeprefix("> "))
            elif found:
                found[-1][2].append(line)
            else:
                raise ValueError(f"line {number}: output before the first command")
        elif continues:
            found[-1][1].append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            found.append((number, [line], []))
    shows_output = block.language != "sh"
    return [
        ShellCommand(number, "\n".join(text), tuple(output) if shows_output else None)
        for number, text, output in found
    ]
