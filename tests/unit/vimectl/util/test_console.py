"""Text of others on a terminal, in a pipe and in JSON. The terminals are real ones."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from vimectl.util import console
from vimectl.util.console import Markup, escape_markup, one_line, visible

HOSTILE = "a\x1b]0;t\x07[/b][red]\u202e\x9b1m\r:warning:"
SHOWN = r"a\x1b]0;t\x07[/b][red]\u202e\x9b1m\r:warning:"

PROGRAM = """
import json, os, sys
from vime_runtime.spec.errors import UsageError
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.console import FileText, Markup, err, escape_markup, report_error
text = json.loads(os.environ["TEXT"])
markup = Markup("[bold]x[/] " + escape_markup(text))
parts = [text, TextTable([text, "y"], [[text, text]], text), FileText(text + "\\n"), markup]
CommandOutput({"text": text, "number": float("nan")}, parts).print("test", "--json" in sys.argv)
err.print(text)
report_error(UsageError(text, text), "test", False)
"""


def run(text: str, *argv: str, terminal: bool = False) -> tuple[str, str]:
    """Return what the program writes to stdout and stderr, or to a terminal."""
    environment = os.environ | {"TEXT": json.dumps(text), "COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    command = [sys.executable, "-c", PROGRAM, *argv]
    if not terminal:
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        return done.stdout.decode(errors="surrogateescape"), done.stderr.decode(errors="surrogateescape")
    here, there = pty.openpty()
    child = subprocess.Popen(command, env=environment, stdin=there, stdout=there, stderr=there)
    os.close(there)
    output = b""
    try:
        while chunk := os.read(here, 4096):
            output += chunk
    except OSError:  # the other end is closed
        pass
    os.close(here)
    assert child.wait() == 0, output.decode()
    return output.decode(), ""


def test_text_of_others_is_neither_markup_nor_a_control_sequence() -> None:
    short = "\x1b\x07[/b]\r\u202e"  # it fits the cells of a table
    out, _ = run(short, terminal=True)
    assert not set("\x1b\x07\x9b\u202e") & set(out)
    assert "\r" not in out.replace("\r\n", "")
    # A line, title, head and cells of a table, a file, markup, an error line, message and hint.
    assert out.count(visible(short)) == 10


def test_a_pipe_gets_files_byte_for_byte_and_all_else_visibly() -> None:
    out, err = run(HOSTILE + "\udcff")
    line, row, file, markup, *rest = out.split("\n")
    shown = SHOWN + r"\xff"
    assert (line, row, file, markup, rest) == (
        shown,
        f"{shown}\t{shown}",
        HOSTILE + "\udcff",
        f"x {shown}",
        [""],
    )
    assert err == f"{shown}\nerror: {shown}\nhint:  {shown}\n"


def test_json_is_valid_for_strict_parsers() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    out, _ = run("\udcff\ud83d \U0001f600", "--json")
    document = json.loads(out, parse_constant=refuse)
    assert document["number"] is None
    document["text"].encode()
    assert document["text"] == "\\xff\\ud83d \U0001f600"


def test_rows_of_a_piped_table_are_lines_with_tabs() -> None:
    out, _ = run("a\tb\nc")
    assert "a\\tb\\nc\ta\\tb\\nc\n" in out


@pytest.mark.parametrize(
    "arguments", [["--version"], ["recipe", "list"], ["recipe", "list", "--json"], ["--help"]]
)
def test_full_stdout_is_exit_code_3_and_a_message(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # a buffer hides the error until the end
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "vimectl", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_closed_streams_are_no_error() -> None:
    vimectl = f"{sys.executable} -m vimectl"
    done = subprocess.run(["sh", "-c", f"{vimectl} recipe list --json >&-"], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    done = subprocess.run(["sh", "-c", f"{vimectl} recipe show nosuch >&- 2>&-"])
    assert done.returncode == 2
    done = subprocess.run(["sh", "-c", f"{vimectl} recipe schema | head -1"], capture_output=True)
    assert done.stderr == b""


def test_full_stderr_keeps_the_exit_code() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "vimectl", "recipe", "show", "nosuch"]
        assert subprocess.run(command, stderr=full).returncode == 2


def test_kept_characters() -> None:
    assert visible("tab\tline\nü \u00a0 \u200d\U0001f600") == "tab\tline\nü \u00a0 \u200d\U0001f600"
    assert one_line("a\tb\nc") == r"a\tb\nc"
    assert Markup(escape_markup(HOSTILE)).plain == SHOWN
    assert Markup(f"[bold]{escape_markup(chr(92))}[/]").plain == chr(92)


def test_only_the_console_prints() -> None:
    """Find calls that bypass the console. Those of separate programs are known."""
    folder = Path(console.__file__).parent.parent
    known = {"images/build_steps.py", "runs/supervisor.py", "runs/summary.py", "doctor/facts/account.py"}
    known |= {"stacks/interpreters.py", "env/interpreter.py"}  # in programs that other interpreters run
    found = set()
    for path in folder.rglob("*.py"):
        text = path.read_text()
        if " print(" in text or "sys.stdout.write" in text or "typer.echo" in text or "markup=False)" in text:
            found.add(str(path.relative_to(folder)))
    assert found - known <= {"util/console.py", "util/phase_progress.py", "runs/progress.py", "cli/output.py"}
