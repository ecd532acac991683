"""The keys on the page of the JSON documents are those of real documents."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import REPOSITORY
from vimectl.cli import run_cli

sys.path.append(str(REPOSITORY / "scripts"))
from reference.command_list import commands
from reference.json_keys import Keys, document_keys
from reference.json_page import MEANINGS, entries, schema_name

COMMANDS = {schema_name(one): one for one in commands() if one.function and not one.is_group}
# One command line for each command that changes nothing and needs nothing.
HARMLESS = [
    "stack list",
    "stack show ascend-0.22",
    "stack detect",
    "doctor --stack cpu-0.32 --only host",
    "doctor --stack cpu-0.32 --list",
    "recipe list",
    "recipe show qwen3-tiny-tp2",
    "recipe validate qwen3-tiny-tp2",
    "recipe schema rollout",
    "runs list",
    "patch list --stack ascend-0.22",
    "patch lint --rules",
    f"patch lint {REPOSITORY / 'patches/vllm/0.22.1'}",
    "image plan --stack ascend-0.22",
    "tms list",
]


def unknown_keys(value: Any, keys: Keys, where: str) -> Iterator[str]:
    """Yield the keys of a document that the page does not have."""
    if isinstance(value, list):
        for one in value:
            yield from unknown_keys(one, keys, where)
    elif isinstance(value, dict) and keys and not value.keys() & keys.keys():  # a table of free names
        for one in value.values():
            yield from unknown_keys(one, keys, where) if isinstance(one, dict) else [where]
    elif isinstance(value, dict) and keys:
        for name, inner in value.items():
            if name not in keys:
                yield f"{where}{name}"
            else:
                yield from unknown_keys(inner, keys[name], f"{where}{name}.")


@pytest.mark.parametrize("line", HARMLESS)
def test_documents_have_the_keys_of_the_page(
    line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_cli([*line.split(), "--json"])
    document = json.loads(capsys.readouterr().out)
    keys = document_keys(COMMANDS[document["schema"]].function)
    assert document.keys() - {"schema", "ok"}, document
    assert set(unknown_keys(document, {"schema": {}, "ok": {}, **keys}, "")) == set()


def test_an_unknown_key_is_noticed() -> None:
    keys: Keys = {"files": {"path": {}, "findings": {"line": {}}}}
    document = {"files": [{"path": "a", "findings": [{"line": 1, "column": 2}], "size": 3}]}
    assert set(unknown_keys(document, keys, "")) == {"files.findings.column", "files.size"}


def test_every_document_has_keys() -> None:
    found = {name: document_keys(command.function) for name, command in COMMANDS.items()}
    assert len(found) > 30
    assert [name for name, keys in found.items() if not keys] == []


def test_every_key_has_a_meaning_and_every_meaning_a_key() -> None:
    listed = [part for _, parts in entries() for part, _ in parts]
    assert [(part.command.name, ".".join(part.path)) for part in listed if not part.meaning] == []
    assert MEANINGS.keys() - {part.meaning for part in listed} == set()


def test_keys_are_listed_where_the_page_says() -> None:
    listed = {command.name: [part.path for part, _ in parts] for command, parts in entries()}
    assert ("targets", "patches", "files", "state") in listed["vimectl patch status"]
    places = {(part.command.name, part.path): place for _, parts in entries() for part, place in parts}
    expected = "the keys of `targets` of [`vimectl patch status`](#vimectl-patch-status)"
    assert places["vimectl patch apply", ("targets",)] == expected
    assert not any(path[:1] == ("targets",) and len(path) > 1 for path in listed["vimectl patch apply"])
