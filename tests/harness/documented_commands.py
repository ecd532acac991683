"""The commands in the documentation: lines of code blocks, and code in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import REPOSITORY

PROGRAMS = ("vimectl", "make")
_CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
_SUBSTITUTION = re.compile(r"\$\(([^()]+)\)")


@dataclass(frozen=True)
class DocumentedCommand:
    """One command: the words after shell quoting, the program without its path first."""

    where: str
    words: tuple[str, ...]
    in_block: bool

    @property
    def text(self) -> str:
        """The command on one line."""
        return shlex.join(self.words)


def documented_commands() -> list[DocumentedCommand]:
    """Return every command of ``vimectl`` and ``make`` in README.md and docs/."""
    files = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    return [command for file in files for command in commands_in(file)]


def commands_in(file: Path) -> list[DocumentedCommand]:
    """Return the commands of one page."""
    found = []
    text = []
    in_fence = False
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{file.name}:{number}"
        if line.lstrip().startswith("```"):
            in_fence = not in_fence
        elif in_fence or line.startswith("    "):
            found += [DocumentedCommand(where, words, True) for words in _commands_of(line)]
        else:
            text.append((where, line))
    for where, line in text:
        for code in _CODE.findall(line):
            found += [DocumentedCommand(where, words, False) for words in _alternatives(code)]
    return found


def _alternatives(code: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of code in the text, such as ``vimectl runs list | show RUN``."""
    if not code.startswith("vimectl "):
        return
    first, *others = re.sub(r"[\[\]]|FILE\|DIR\.\.\.", " ", code.replace("\\|", "|")).split("|")
    for words in _commands_of(first):
        yield words
        for other in others:
            yield (*words[:2], *other.split())


def _commands_of(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a line of shell, also those in ``$(...)`` and after ``&&``."""
    line = re.sub(r"\[(-[^]]*)\]", r"\1", line.strip().removeprefix("$ "))
    for inner in _SUBSTITUTION.findall(line):
        yield from _commands_of(inner)
    for part in _SUBSTITUTION.sub("SUBSTITUTED", line).split("&&"):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:
            continue  # not shell
        while words and re.fullmatch(r"\w+=\S*", words[0]):  # variables before the command
            words = words[1:]
        if len(words) > 1 and Path(words[0]).name in PROGRAMS and not words[0].endswith("/"):
            yield (Path(words[0]).name, *words[1:])
