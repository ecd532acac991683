"""The output of a command: one JSON document, or text and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from vimectl.util.console import emit_json, out, table


class TextTable(NamedTuple):
    """A table for people; lines of values separated by tabs when piped."""

    columns: list[str]
    rows: list[list[str]]
    title: str = ""


class CommandOutput(NamedTuple):
    """The output of a command.

    Attributes:
        document: what the JSON document has in addition to ``schema`` and ``ok``. A function is called only
            with --json.
        text: lines, files and tables, printed without --json. A generator makes them only then. Lines of
            others are a plain ``str``; see ``vimectl.util.console``.
        exit_code: ``ok`` is true if it is 0.
    """

    document: dict[str, Any] | Callable[[], dict[str, Any]]
    text: Iterable[str | TextTable]
    exit_code: int = 0

    def print(self, command: str, as_json: bool) -> None:
        """Print the output of a command, named as in the JSON schema: ``patch.status``."""
        if as_json:
            document = self.document() if callable(self.document) else self.document
            emit_json(command, self.exit_code == 0, **document)
            return
        for part in self.text:
            if isinstance(part, TextTable):
                table(part.title, part.columns, part.rows)
            else:
                out.print(part, end="" if part.endswith("\n") else "\n")
