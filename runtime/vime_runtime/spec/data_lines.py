"""A data file: rows with a prompt and a label, as ``data.path`` and the paths of ``[evaluation]`` name it.

JSON lines are read here. ``vime_runtime.data.parquet`` reads parquet, with ``parse_row`` of this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from numbers import Number
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError
from vime_runtime.spec.recipe import DataTable
from vime_runtime.spec.regular_files import open_regular

# In bytes. A longer line is no problem of a data set, and must not fill the memory.
_MAX_LINE = 64 * 2**20
_UTF8_BOM = b"\xef\xbb\xbf"
_PARQUET_MAGIC = b"PAR1"
_ONE_OBJECT = "one JSON object a line is expected, in UTF-8"

Prompt = str | list[dict[str, Any]]


@dataclass(frozen=True)
class DataLine:
    """One problem of a data file.

    Attributes:
        where: ``FILE:NUMBER``, for messages.
        prompt: text, or chat messages with ``role`` and ``content``.
        row: the whole object, for rewards; None for a task.
    """

    where: str
    prompt: Prompt
    label: str
    row: dict[str, Any] | None = None


def is_parquet(path: Path) -> bool:
    """Return True for a file whose name ends in ``.parquet``, or which begins as one.

    Raises:
        UsageError: there is no such file, or it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return path.suffix == ".parquet" or file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
        raise UsageError(f"no data file at {path}", "give an existing one: --set data.path=FILE") from e
    except OSError as e:
        raise _unreadable(path, e) from e


def read_lines(data: DataTable) -> Iterator[DataLine]:
    """Read every line of ``data.path`` that is not blank.

    Raises:
        UsageError: the file cannot be read or has no lines, or as ``parse_line``.
    """
    path = Path(data.path)
    empty = True
    if is_parquet(path):
        raise ValueError(f"{path} is a parquet file")
    try:
        with open_regular(path) as file:
            lines = iter(partial(file.readline, _MAX_LINE), b"")
            for number, line in enumerate(lines, 1):
                if len(line) == _MAX_LINE:
                    raise UsageError(f"{path}:{number}: longer than any prompt", "one JSON object a line")
                if number == 1:
                    line = line.removeprefix(_UTF8_BOM)
                if line.strip():
                    empty = False
                    yield parse_line(line, f"{path}:{number}", data)
    except OSError as e:
        raise _unreadable(path, e) from e
    if empty:
        raise empty_file(path)


def parse_line(line: bytes, where: str, data: DataTable) -> DataLine:
    """Parse and check one line.

    Raises:
        UsageError: it is not a JSON object with a prompt and a label of the right types.
    """
    try:
        entry = json.loads(line.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"{where}: not JSON: {e}", _ONE_OBJECT) from e
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: expected a JSON object, found {type(entry).__name__}", _ONE_OBJECT)
    return parse_row(entry, where, data)


def parse_row(row: dict[str, Any], where: str, data: DataTable) -> DataLine:
    """Check one row of any format.

    Raises:
        UsageError: it has no prompt or no label, or one of the wrong type.
    """
    prompt = _value(row, data.prompt_key, "prompt_key", where)
    label = _label(_value(row, data.label_key, "label_key", where), where, data)
    if isinstance(prompt, str):
        texts = [prompt]
    else:
        prompt = _messages(prompt, where, data)
        texts = [message["content"] for message in prompt]
    if not any(text.strip() for text in texts):
        raise UsageError(f"{where}: {data.prompt_key!r} is empty", "write the prompt, or remove the line")
    for name, text in [(data.prompt_key, text) for text in texts] + [(data.label_key, label)]:
        _check_encodable(text, name, where)
    return DataLine(where, prompt, label, row)


def empty_file(path: Path) -> UsageError:
    """Return the error for a file without any row."""
    return UsageError(f"{path} is empty", "at least one problem is expected")


def _unreadable(path: Path, error: OSError) -> UsageError:
    return UsageError(f"{path}: cannot be read: {error.strerror}", "name a file that this user can read")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises ValueError for a repeated key, whose first value would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _value(row: dict[str, Any], name: str, key: str, where: str) -> Any:
    """Return the value of a key of the row; ``a.b`` is the key b of the object a."""
    if name in row:
        return row[name]
    found: Any = row
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            keys = ", ".join(sorted(row)) or "none"
            raise UsageError(
                f"{where}: no key {name!r}; keys found: {keys}",
                f"add it, or name another: --set data.{key}=KEY",
            )
        found = found[part]
    return found


def _label(label: Any, where: str, data: DataTable) -> str:
    """Return a label as text. A number becomes its decimal notation."""
    if isinstance(label, str):
        return label
    if isinstance(label, Number) and not isinstance(label, bool):
        if isinstance(label, float) and not math.isfinite(label):
            raise UsageError(f"{where}: {data.label_key!r} is {label}", "write the label as text")
        return str(label)
    found = "null" if label is None else type(label).__name__
    raise UsageError(
        f"{where}: {data.label_key!r} should be text or a number, found {found}",
        "write the label as text; a reward function can read other values from the row",
    )


def _messages(prompt: Any, where: str, data: DataTable) -> list[dict[str, Any]]:
    """Return a prompt of chat messages. Keys without a value, as parquet has them, are left out."""
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
    return [{key: value for key, value in m.items() if value is not None} for m in prompt]


def _check_encodable(text: str, name: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise UsageError(
            f"{where}: {name!r} has half of a character, \\u{ord(text[e.start]):04x}, at position {e.start}",
            "such text cannot be tokenized: write both halves of the surrogate pair, or remove it",
        ) from e
