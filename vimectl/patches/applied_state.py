"""The bookkeeping folder of a target, ``.vimectl/``: what was applied, and the content it replaced.

    ledger.json        for each package: series, when, and the blob ids of each file before and after
    original/<blob>    the content of each patched file before, named by its git blob id
    journal.json       a change under way, and stage/ its prepared files (see transaction)
    lock               held while a change is under way
    .gitignore         in a work tree: git sees nothing of this folder

States are judged by content, never by the ledger: it only tells what an apply left there, an earlier
revision of a series or a merge, from an edit, and keeps the content to show differences against and to go
back to.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import blob_id

FOLDER = ".vimectl"
SCHEMA = "vimectl.ledger/1"

# A ledger may come with a tree that somebody else packed: what it names must lie in the target.
_INSIDE = re.compile(r"([\w.-]*\w[\w.-]*/)*[\w.-]*\w[\w.-]*")
_BLOB = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class File:
    """One file that an apply changed: blob ids before (None: created) and after (None: deleted).

    ``mode`` is the ``st_mode`` before, kept where a patch deletes the file or changes its mode.
    When somebody's edits were merged, ``before`` has them on the release, ``after`` on the patched file;
    ``merged`` and ``released`` are the blob ids of these two without the edits.
    """

    path: str
    before: str | None = None
    after: str | None = None
    mode: int | None = None
    merged: str | None = None
    released: str | None = None


@dataclass(frozen=True)
class Record:
    """The RECORD of the package's distribution, before and after the apply."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Entry:
    """What was done to one package: the series, when (UTC), by which vimectl, and to which files.

    ``folders`` were made for created files, and go with them.
    """

    series: str
    applied: str
    vimectl: str
    files: tuple[File, ...]
    folders: tuple[str, ...] = ()
    record: Record | None = None

    def file(self, path: str) -> File | None:
        return next((file for file in self.files if file.path == path), None)


def folder(location: Path) -> Path:
    """Return the bookkeeping folder of a target directory; it need not exist."""
    return location / FOLDER


def ledger_path(location: Path) -> Path:
    return folder(location) / "ledger.json"


def original_path(location: Path, blob: str) -> Path:
    return folder(location) / "original" / blob


def read(location: Path) -> dict[str, Entry]:
    """Return the ledger of a target directory by package; empty when nothing was ever applied there.

    Raises UsageError when the file is not what this tool wrote.
    """
    path = ledger_path(location)
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
        if data["schema"] != SCHEMA:
            raise ValueError(data["schema"])
        return {str(name): _entry(entry) for name, entry in data["packages"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UsageError(f"{path}: not a ledger of this tool", "remove it to forget what was applied") from e


def dump(entries: dict[str, Entry]) -> bytes | None:
    """Return the text of ``ledger.json`` for these entries, or None when there are none."""
    if not entries:
        return None
    packages = {name: _stated(asdict(entries[name])) for name in sorted(entries)}
    return (json.dumps({"schema": SCHEMA, "packages": packages}, indent=2) + "\n").encode()


def original(location: Path, blob: str) -> bytes | None:
    """Return content that a patch replaced, or None when it is not kept or no longer itself."""
    path = original_path(location, blob)
    content = path.read_bytes() if path.is_file() else None
    return content if content is not None and blob_id(content) == blob else None


def _entry(data: dict[str, Any]) -> Entry:
    files = tuple(File(**file) for file in data["files"])
    record = Record(**data["record"]) if data.get("record") else None
    paths = [file.path for file in files] + list(data.get("folders", ())) + ([record.path] if record else [])
    blobs = [blob for file in files for blob in (file.before, file.after, file.merged, file.released) if blob]
    if not all(map(_INSIDE.fullmatch, paths)) or not all(map(_BLOB.fullmatch, blobs)):
        raise ValueError("a path or a blob id")
    return Entry(**{**data, "files": files, "folders": tuple(data.get("folders", ())), "record": record})


def _stated(entry: dict[str, Any]) -> dict[str, Any]:
    """Leave out what has nothing to say, so that an earlier vimectl can read the ledger of a plain apply."""
    files = [{key: value for key, value in file.items() if _says(key, value)} for file in entry.pop("files")]
    return {key: value for key, value in (entry | {"files": files}).items() if value not in ((), None)}


def _says(key: str, value: Any) -> bool:
    return key in ("path", "before", "after") or value is not None
