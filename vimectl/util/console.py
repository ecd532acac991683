"""Output for the user: rich on a terminal, plain text when piped, one JSON document with --json.

stdout only carries the result; progress, logs and errors go to stderr. All text passes through this module.
--quiet leaves only the result and errors, --verbose adds details: ``err.note``, ``err.detail``.
A ``str`` is text of anyone: brackets in it are no markup, and characters that a terminal interprets or hides
are shown as escapes. Only ``Markup`` has markup. ``FileText`` is written byte for byte unless it is shown on
a terminal.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TextIO

from vime_runtime.spec.errors import MissingRequirement

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType
    from vime_runtime.spec.errors import VimeError

# Control characters (C0 without tabs and newlines, DEL, C1), separators of lines and paragraphs, marks and
# overrides of the writing direction, and halves of surrogate pairs, which UTF-8 cannot encode.
_HIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class OutputError(MissingRequirement):
    """Standard output or standard error cannot be written: the disk is full, for example."""


class Markup(str):
    """A text in rich's markup; what it quotes has to pass through ``escape_markup``."""

    @property
    def plain(self) -> str:
        """The text without markup."""
        from rich.text import Text

        return Text.from_markup(self, emoji=False).plain


class FileText(str):
    """Content of a file. Bytes that are not UTF-8 are decoded with surrogateescape."""


QUIET, NORMAL, VERBOSE = -1, 0, 1


class _Stream:
    """A rich console for stdout or stderr, created on first use because importing rich is slow."""

    def __init__(self, stderr: bool) -> None:
        self._stderr = stderr
        self.level = NORMAL

    @property
    def _file(self) -> TextIO:
        return sys.stderr if self._stderr else sys.stdout

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        # highlight=False: rich would color numbers and paths, which is noise in tables of versions.
        # emoji=False: a text like ":warning:" is printed as it is.
        return Console(stderr=self._stderr, highlight=False, emoji=False, soft_wrap=not self._file.isatty())

    @property
    def is_terminal(self) -> bool:
        forced = any(name in os.environ for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"))
        return (self._file.isatty() or forced) and self.console.is_terminal

    def print(self, text: str | RenderableType, end: str = "\n") -> None:
        """Print a text, or something that rich renders and that has no text of others in markup."""
        with _explain_write_errors(self._file):
            if isinstance(text, Markup):
                self.console.print(text, end=end)
            elif isinstance(text, FileText) and not self.is_terminal:
                self._write_exactly(text + end)
            elif isinstance(text, str):
                self._file.write(visible(text) + end)
            else:
                self.console.print(text, end=end)

    def note(self, text: str) -> None:
        """Print what a user may want to know, but not with --quiet."""
        if self.level > QUIET:
            self.print(text)

    def detail(self, text: str) -> None:
        """Print what helps to find out why something fails or is slow, only with --verbose."""
        if self.level == VERBOSE:
            from vimectl.util.secrets import redact

            self.print(redact(text))

    def command(self, argv: Sequence[str | Path]) -> None:
        """Print a command that is run, only with --verbose."""
        if self.level == VERBOSE:
            import shlex

            self.detail(f"+ {shlex.join(map(str, argv))}")

    def progress_console(self) -> Console:
        """Return the console for a progress display, which shows nothing with --quiet."""
        from rich.console import Console

        return self.console if self.level > QUIET else Console(stderr=True, quiet=True, force_terminal=False)

    def flush(self) -> None:
        """Write what is buffered."""
        with _explain_write_errors(self._file):
            self._file.flush()

    def _write_exactly(self, text: str) -> None:
        if not _SURROGATE.search(text):
            self._file.write(text)
            return
        self._file.flush()
        self._file.buffer.write(text.encode(errors="surrogateescape"))


@contextmanager
def _explain_write_errors(stream: TextIO) -> Iterator[None]:
    """Raise OutputError for an OSError of writing to the stream, but not for a closed pipe."""
    try:
        yield
    except OSError as e:
        if e.errno == errno.EPIPE:
            raise
        name = "standard error" if stream is sys.stderr else "standard output"
        hint = "free some space, or send the output elsewhere"
        raise OutputError(f"{name} cannot be written: {e.strerror}", hint) from e


out = _Stream(stderr=False)
err = _Stream(stderr=True)


def emit_json(command: str, ok: bool, /, **payload: Any) -> None:
    """Print the JSON document of a command: ``{"schema", "ok", ...}``. It is strict JSON in ASCII."""
    document = {"schema": f"vimectl.{command}/1", "ok": ok, **payload}
    try:
        text = json.dumps(document, indent=2, default=str, allow_nan=False)
        strict = r"\ud" not in text  # a character above U+FFFF, or half of one
    except ValueError:
        strict = False
    if not strict:
        text = json.dumps(_strict(document), indent=2)
    with _explain_write_errors(sys.stdout):
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _strict(value: Any) -> Any:
    """Return a JSON value without what strict parsers refuse: numbers not finite, halves of characters."""
    if isinstance(value, dict):
        return {_strict(key if isinstance(key, str) else str(key)): _strict(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return _SURROGATE.sub(_escape, str(value))


def report_error(error: VimeError, command: str, as_json: bool) -> None:
    """Print an error as text on stderr, or as the JSON document on stdout."""
    if as_json:
        emit_json(command, False, error={"kind": error.kind, "message": error.message, "hint": error.hint})
        return
    err.print(Markup(f"[bold red]error:[/] {escape_markup(error.message)}"))
    if error.hint:
        err.print(Markup(f"[bold]hint:[/]  {escape_markup(error.hint)}"))


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print rows as a rich table on a terminal, as tab-separated lines when piped."""
    if not out.is_terminal:
        for row in rows:
            out.print("\t".join(map(one_line, row)))
        return
    from rich.table import Table
    from rich.text import Text

    view = Table(title=Text(visible(title)) if title else None, title_justify="left", header_style="bold")
    for column in columns:
        view.add_column(Text(visible(column)), overflow="fold")
    for row in rows:
        view.add_row(*(Text(visible(cell)) for cell in row))
    out.print(view)


def visible(text: str) -> str:
    r"""Return a text in which every character that a terminal interprets or hides is shown as an escape.

    Tabs and newlines are kept.

    >>> print(visible("\x1b[31mred"))
    \x1b[31mred
    """
    return _HIDDEN.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Return a visible text as one line without tabs.

    >>> print(one_line("a\tb\nc"))
    a\tb\nc
    """
    return visible(text).replace("\t", r"\t").replace("\n", r"\n")


def escape_markup(text: str) -> str:
    """Return a visible text that rich prints as it is, although it has brackets or ends in a backslash."""
    from rich.markup import escape

    return escape(visible(text))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    # Half a pair in this range is a byte that is not UTF-8.
    return f"\\x{code - 0xDC00:x}" if 0xDC80 <= code <= 0xDCFF else match[0].encode("unicode_escape").decode()
