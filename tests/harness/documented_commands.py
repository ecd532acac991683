"""The commands in the documentation: lines of code blocks, and code in the text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile, groupby
from pathlib import Path

from harness import REPOSITORY
from harness.code_blocks import SHELL, CodeBlock, code_blocks, shell_commands

PROGRAMS = ("vimectl", "make")
_CODE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
_SUBSTITUTION = re.compile(r"\$\(([^()]+)\)")


@dataclass(frozen=True)
class DocumentedCommand:
    """One command: the words after shell quoting, the program without its path first."""

    page: Path
    line: int
    words: tuple[str, ...]
    in_block: bool

    @property
    def where(self) -> str:
        """The page in the repository, and the line."""
        folder = REPOSITORY if self.page.is_relative_to(REPOSITORY) else self.page.parent
        return f"{self.page.relative_to(folder)}:{self.line}"

    @property
    def text(self) -> str:
        """The command on one line."""
        return shlex.join(self.words)


def documented_commands() -> list[DocumentedCommand]:
    """Return every command of ``vimectl`` and ``make`` in README.md, its translations and docs/."""
    files = [*sorted(REPOSITORY.glob("README*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
    return [command for file in files for command in commands_in(file)]


def commands_in(file: Path) -> list[DocumentedCommand]:
    """Return the commands of one page: those of its blocks, then those in its text."""
    page = file.read_text(encoding="utf-8")
    blocks = list(code_blocks(page))
    fenced = {
        number
        for block in blocks
        for number in range(block.first_line - 1, block.first_line + len(block.lines) + 1)
    }
    lines = [(n, line) for n, line in enumerate(page.splitlines(), start=1) if n not in fenced]
    shell = [(c.line, c.text) for block in blocks if _is_shell(block) for c in shell_commands(block)]
    shell += [(number, line) for number, line in lines if line.startswith("    ")]
    found = [
        DocumentedCommand(file, number, words, True)
        for number, text in sorted(shell)
        for words in _commands_of(text)
    ]
    found += [
        DocumentedCommand(file, number, words, False)
        for number, line in lines
        if not line.startswith("    ")
        for code in _CODE.findall(line)
        for words in _alternatives(code)
    ]
    return found


def _is_shell(block: CodeBlock) -> bool:
    prompt = bool(block.lines) and block.lines[0].startswith("$ ")
    return block.language in SHELL or (not block.language and prompt)


def _alternatives(code: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of code in the text, such as ``vimectl runs list | show RUN``."""
    if not code.startswith("vimectl "):
        return
    first, *others = re.sub(r"[\[\]]|FILE\|DIR\.\.\.", " ", code.replace("\\|", "|")).split("|")
    for words in _commands_of(first):
        yield words
        for other in others:
            yield (*words[:2], *other.split())


def _commands_of(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the commands of a line: of a pipeline, of a list such as ``a && b``, and in ``$(...)``."""
    text = re.sub(r"\[(-[^]]*)\]", r"\1", text.strip().removeprefix("$ ").replace("\\\n", " "))
    for inner in _SUBSTITUTION.findall(text):
        yield from _commands_of(inner)
    lexer = shlex.shlex(_SUBSTITUTION.sub("SUBSTITUTED", text), posix=True, punctuation_chars="();|&")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        return  # not shell
    for separator, group in groupby(tokens, lambda token: set(token) <= set("();|&")):
        words = list(dropwhile(re.compile(r"\w+=\S*").fullmatch, group))  # variables before the command
        if separator or len(words) < 2 or words[0].endswith("/"):
            continue
        if Path(words[0]).name in PROGRAMS:
            yield (Path(words[0]).name, *words[1:])
