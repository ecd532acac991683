"""The bookkeeping folder of a target, ``.vimectl/``: what was applied, and the content it replaced.

    ledger.json        for each package: series, when, and the blob ids of each file before and after
    original/<blob>    the released content of each patched file, named by its git blob id
    journal.json       a change under way, and stage/ its prepared files (see transaction)
    lock               held while a change is under way

States are judged by content, never by the ledger: it only tells an earlier revision of a series from an edit,
and keeps the released content to show differences against and to go back to.
"""

from __future__ import annotations

import json
from pathlib import Path

from vimectl import toml
from vimectl.errors import BadInput
from vimectl.patching.blobs import blob_id
from vimectl.patching.series import PatchedFile

FOLDER = ".vimectl"
SCHEMA = "vimectl.ledger/1"


class Entry(toml.Strict):
    """What was done to one package: the series, when (UTC), by which vimectl, and each file's blob ids."""

    series: str
    applied: str
    vimectl: str
    files: list[PatchedFile]


def folder(location: Path) -> Path:
    """Return the bookkeeping folder of a target directory; it need not exist."""
    return location / FOLDER


def ledger_path(location: Path) -> Path:
    return folder(location) / "ledger.json"


def original_path(location: Path, blob: str) -> Path:
    return folder(location) / "original" / blob


def read(location: Path) -> dict[str, Entry]:
    """Return the ledger of a target directory by package; empty when nothing was ever applied there.

    Raises BadInput when the file is not what this tool wrote.
    """
    path = ledger_path(location)
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
        packages = data["packages"] if data["schema"] == SCHEMA else None
    except (ValueError, KeyError, TypeError):
        packages = None
    if not isinstance(packages, dict):
        raise BadInput(f"{path}: not a ledger of this tool", "remove it to forget what was applied")
    return {name: toml.validate(Entry, entry, str(path)) for name, entry in packages.items()}


def dump(entries: dict[str, Entry]) -> bytes | None:
    """Return the text of ``ledger.json`` for these entries, or None when there are none."""
    if not entries:
        return None
    packages = {name: entries[name].model_dump() for name in sorted(entries)}
    return (json.dumps({"schema": SCHEMA, "packages": packages}, indent=2) + "\n").encode()


def original(location: Path, blob: str) -> bytes | None:
    """Return released content that a patch replaced, or None when it is not kept or no longer itself."""
    path = original_path(location, blob)
    content = path.read_bytes() if path.is_file() else None
    return content if content is not None and blob_id(content) == blob else None
