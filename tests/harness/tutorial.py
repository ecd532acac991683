"""Follow a tutorial: run its commands in one shell, write the files that it shows, compare the output."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

from harness.code_blocks import SHELL, CodeBlock, ShellCommand, code_blocks, shell_commands, titled_file

# The home of the reader, as the pages show it.
HOME = "/home/me"
# A page shows this for output that it leaves out: lines, or a part of a line.
LEFT_OUT = "..."
# Seconds; ends a hang.
LIMIT = 3000
_END = "end-of-command"
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?")


class ReaderShell:
    """One bash for a whole page, so that `cd` and an activated environment last.

    Attributes:
        directory: the working directory after the last command.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.directory = folder
        self._timer = threading.Timer(LIMIT, os.killpg, (self._shell.pid, signal.SIGKILL))
        self._timer.start()

    def run(self, command: str) -> tuple[int, str]:
        """Run a command without an input; return its exit code and its output."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n{_END} %s %s\\n' $? \"$PWD\"\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(f"{_END} "):
                _, code, directory = line.split(maxsplit=2)
                self.directory = Path(directory.strip())
                return int(code), "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell has ended in `{command}`:\n{''.join(lines)}")

    def close(self) -> None:
        """End the shell."""
        self._timer.cancel()
        self._shell.communicate()


def follow(page: Path, home: Path, environment: Mapping[str, str], start: str = ".") -> list[str]:
    """Do what a page says in a folder below the reader's home, and return the commands that were run.

    Raises AssertionError if a command fails, or prints something else than the page shows.
    """
    shell = ReaderShell(home / start, environment)
    done = []
    try:
        for block in code_blocks(page.read_text(encoding="utf-8")):
            if file := titled_file(block):
                change_as_reader(shell.directory / file, block)
            elif block.language in SHELL:
                for command in shell_commands(block):
                    code, output = shell.run(command.text)
                    where = f"{page.name}:{command.line}: {command.text}"
                    assert code == 0, f"{where}\nexit code {code}\n{output}"
                    check_output(command, output.replace(str(home), HOME), where)
                    done.append(command.text)
    finally:
        shell.close()
    return done


def change_as_reader(file: Path, block: CodeBlock) -> None:
    """Write a file that a page shows. A ``diff`` block changes an existing one.

    Lines of a diff begin with ``+``, ``-`` or a space. A line ``...`` separates the places.
    """
    if block.language != "diff":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(block.lines) + "\n", encoding="utf-8")
        return
    text = file.read_text(encoding="utf-8")
    for place in "\n".join(block.lines).split(f"\n{LEFT_OUT}\n"):
        lines = place.splitlines()
        old, new = ("".join(line[1:] + "\n" for line in lines if not line.startswith(sign)) for sign in "+-")
        assert text.count(old) == 1, f"{file.name} has not once:\n{old}"
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def check_output(command: ShellCommand, output: str, where: str) -> None:
    """Compare the output of a command with the lines that the page shows."""
    if command.output is None:
        return
    shown = "\n".join(command.output)
    assert matches(shown, output), f"{where}\nthe page shows:\n{shown}\nthe output is:\n{output}"


def matches(shown: str, output: str) -> bool:
    """Compare shown with real output, line by line.

    Numbers and the amount of white space may differ. A line ``...`` is any number of lines, and ``...`` in a
    line any text. Nothing else may be missing or more.
    """
    pattern = ""
    for line in _normalized(shown):
        if line == LEFT_OUT:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split(LEFT_OUT)) + r"\n"
    return re.fullmatch(pattern, "".join(line + "\n" for line in _normalized(output))) is not None


def _normalized(text: str) -> list[str]:
    lines = [" ".join(_NUMBER.sub("0", line).split()) for line in text.splitlines()]
    return [line for line in lines if line]
