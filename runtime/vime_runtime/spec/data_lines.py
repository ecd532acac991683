"""A data file: JSON lines with a prompt and a label, as ``data.path`` and ``evaluation.path`` name it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable

# In bytes. A longer line is no problem of a data set, and must not fill the memory.
_MAX_LINE = 64 * 2**20


@dataclass(frozen=True)
class DataLine:
    """One problem of a data file.

    Attributes:
        where: ``FILE:NUMBER``, for messages.
        prompt: text, or chat messages with ``role`` and ``content``.
    """

    where: str
    prompt: str | list[dict[str, str]]
    label: str


def read_lines(data: DataTable) -> Iterator[DataLine]:
    """Read every line of ``data.path`` that is not blank.

    Raises:
        UsageError: the file cannot be read or has no lines, or as ``parse_line``.
    """
    path = Path(data.path)
    empty = True
    if not path.is_file():
        raise UsageError(f"no data file at {path}", "give an existing one: --set data.path=FILE")
    try:
        with path.open("rb") as file:
            lines = iter(partial(file.readline, _MAX_LINE), b"")
            for number, line in enumerate(lines, 1):
                if len(line) == _MAX_LINE:
                    raise UsageError(f"{path}:{number}: longer than any prompt", "one JSON object a line")
                if line.strip():
                    empty = False
                    yield parse_line(line, f"{path}:{number}", data)
    except OSError as e:
        raise UsageError(f"{path}: cannot be read: {e}", "data.path must be JSON lines in UTF-8") from e
    if empty:
        raise UsageError(f"{path} is empty", "one JSON object a line is expected")


def parse_line(line: bytes, where: str, data: DataTable) -> DataLine:
    """Parse and check one line.

    Raises:
        UsageError: it is not a JSON object with a prompt and a label of the right types.
    """
    try:
        entry = json.loads(line)
    except ValueError as e:
        raise UsageError(f"{where}: not JSON: {e}", "one JSON object a line is expected") from e
    if not isinstance(entry, dict):
        raise UsageError(
            f"{where}: expected a JSON object, found {type(entry).__name__}", "see [data] in the recipe"
        )
    for key, name in (("prompt_key", data.prompt_key), ("label_key", data.label_key)):
        if name not in entry:
            found = ", ".join(sorted(entry)) or "none"
            raise UsageError(
                f"{where}: no key {name!r}; keys found: {found}",
                f"add it, or name another: --set data.{key}=KEY",
            )
    prompt, label = entry[data.prompt_key], entry[data.label_key]
    if not isinstance(label, str):
        raise UsageError(f"{where}: {data.label_key!r} should be text", "write the label as a string")
    if not isinstance(prompt, str):
        _check_messages(prompt, where, data)
    return DataLine(where, prompt, label)


def _check_messages(prompt: Any, where: str, data: DataTable) -> None:
    messages = isinstance(prompt, list) and prompt
    if not messages or not all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in prompt
    ):
        raise UsageError(
            f'{where}: {data.prompt_key!r} should be text or a list of {{"role", "content"}}',
            "correct the line",
        )
    if not data.apply_chat_template:
        raise UsageError(
            f"{where}: a list of messages needs the model's chat template",
            "--set data.apply_chat_template=true",
        )
