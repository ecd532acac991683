"""Explain the error codes of npu-smi, dcmi and the Ascend driver by a table, `error_codes.toml`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from vimectl.util.host import CommandResult
from vimectl.util.toml import read_toml

# Exit statuses of the shell and of ``Host.run``, which are not the program's own.
_NOT_THE_PROGRAM = (124, 126, 127)


@cache
def _table() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("error_codes.toml"))


def dcmi_code(answer: CommandResult) -> int | None:
    """Return the dcmi code of a failed command: the one that it prints, or that of its exit status."""
    codes: dict[str, str] = _table()["dcmi"]["codes"]
    if found := re.search(_table()["dcmi"]["pattern"], answer.stdout + answer.stderr):
        return int(found[1][:9])
    if answer.code in (0, *_NOT_THE_PROGRAM):
        return None
    # npu-smi exits with the code, of which the kernel keeps the low byte: 187 is -8005.
    return next((int(code) for code in codes if int(code) % 256 == answer.code % 256), None)


def explain(answer: CommandResult) -> list[str]:
    """Return what the codes and messages of a failed command mean, each with its source."""
    return list(dict.fromkeys(_explanations(answer)))


def _explanations(answer: CommandResult) -> Iterator[str]:
    table, text = _table(), answer.stdout + answer.stderr
    for message in table["messages"].values():
        for found in re.finditer(message["pattern"], text):
            meaning = message["meaning"].format(**found.groupdict())
            yield f"{meaning} ({message['source']})"
    for number in re.findall(table["driver"]["pattern"], text):
        yield _meaning("driver", number)
    if (code := dcmi_code(answer)) is not None:
        yield _meaning("dcmi", str(code))
        if report := table["reports"].get(str(code)):
            yield f"reports of {code}: {report}"


def _meaning(kind: str, number: str) -> str:
    table = _table()[kind]
    meaning = table["codes"].get(number)
    return f"{number}: {meaning} ({table['source']})" if meaning else f"{number}: not a known code of {kind}"
