"""Output for the user: rich on a terminal, plain text when piped, one JSON document with --json.

stdout only carries the result; progress, logs and errors go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from vime_runtime.spec.errors import VimeError


class _Stream:
    """A rich console for stdout or stderr, created on first use because importing rich is slow."""

    def __init__(self, stderr: bool) -> None:
        self._stderr = stderr

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        stream = sys.stderr if self._stderr else sys.stdout
        # highlight=False: rich would color numbers and paths, which is noise in tables of versions.
        return Console(stderr=self._stderr, highlight=False, soft_wrap=not stream.isatty())

    @property
    def is_terminal(self) -> bool:
        stream = sys.stderr if self._stderr else sys.stdout
        forced = any(name in os.environ for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"))
        return (stream.isatty() or forced) and self.console.is_terminal

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as ``rich.console.Console.print`` does."""
        self.console.print(*objects, **options)


out = _Stream(stderr=False)
err = _Stream(stderr=True)


def emit_json(command: str, ok: bool, /, **payload: Any) -> None:
    """Print the JSON document of a command: ``{"schema", "ok", ...}``."""
    document = {"schema": f"vimectl.{command}/1", "ok": ok, **payload}
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=False, default=str) + "\n")
    sys.stdout.flush()


def report_error(error: VimeError, command: str, as_json: bool) -> None:
    """Print an error as text on stderr, or as the JSON document on stdout."""
    if as_json:
        emit_json(command, False, error={"kind": error.kind, "message": error.message, "hint": error.hint})
        return
    err.print(f"[bold red]error:[/] {escape_markup(error.message)}")
    if error.hint:
        err.print(f"[bold]hint:[/]  {escape_markup(error.hint)}")


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print rows as a rich table on a terminal, as tab-separated lines when piped."""
    if not out.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    from rich.table import Table

    view = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        view.add_column(column, overflow="fold")
    for row in rows:
        view.add_row(*row)
    out.print(view)


def escape_markup(text: str) -> str:
    """Return a text that rich prints as it is, although it has brackets."""
    return text.replace("[", r"\[")
