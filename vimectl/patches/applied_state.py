"""Record what was applied to a target, in its bookkeeping folder ``.vimectl/``.

    ledger.json        by package: series, time, and the blob ids of each file before and after
    original/<blob>    the content of each patched file before, named by its git blob id
    journal.json       a change in progress, and stage/ its prepared files (see transaction)
    lock               held during a change
    .gitignore         in a work tree: git ignores this folder

The state of a target follows from the contents of its files, never from this record. The record
distinguishes a former apply (an earlier revision of a series, or a merge) from an edit, and keeps the content
that diffs start from and that a revert restores.
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

# The record may come from an archive that another user packed: its paths must be inside of the target.
_INSIDE = re.compile(r"([\w.-]*\w[\w.-]*/)*[\w.-]*\w[\w.-]*")
_BLOB = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class AppliedFile:
    """One file that an apply changed: blob ids before (None: created) and after (None: deleted).

    ``mode`` is the ``st_mode`` before, kept if a patch deletes the file or changes its mode. If a user's
    edits were merged, ``before`` is the release with the edits and ``after`` the patched file with them;
    ``released`` and ``merged`` are the blob ids of these two without the edits.
    """

    path: str
    before: str | None = None
    after: str | None = None
    mode: int | None = None
    merged: str | None = None
    released: str | None = None


@dataclass(frozen=True)
class AppliedSeries:
    """One package: the series, when it was applied (UTC), the version of vimectl, and the files.

    ``folders`` were made for created files, and are removed with them. ``record`` is the RECORD of the
    package's distribution.
    """

    series: str
    applied: str
    vimectl: str
    files: tuple[AppliedFile, ...]
    folders: tuple[str, ...] = ()
    record: AppliedFile | None = None

    def file(self, path: str) -> AppliedFile | None:
        return next((file for file in self.files if file.path == path), None)


def bookkeeping_folder(location: Path) -> Path:
    """Return the bookkeeping folder of a target directory; it need not exist."""
    return location / FOLDER


def state_path(location: Path) -> Path:
    return bookkeeping_folder(location) / "ledger.json"


def original_folder(location: Path) -> Path:
    return bookkeeping_folder(location) / "original"


def read(location: Path) -> dict[str, AppliedSeries]:
    """Return what was applied to a target directory, by package; empty if nothing ever was.

    Raises UsageError when the file was not written by this tool.
    """
    path = state_path(location)
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
        if data["schema"] != SCHEMA:
            raise ValueError(data["schema"])
        return {str(name): _parse(entry) for name, entry in data["packages"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UsageError(f"{path}: not written by this tool", "remove it to forget what was applied") from e


def dump(packages: dict[str, AppliedSeries]) -> bytes | None:
    """Return the text of ``ledger.json``, or None when there are no packages."""
    if not packages:
        return None
    data = {name: _without_defaults(packages[name]) for name in sorted(packages)}
    return (json.dumps({"schema": SCHEMA, "packages": data}, indent=2) + "\n").encode()


def original(location: Path, blob: str) -> bytes | None:
    """Return content that a patch replaced, or None when it was not kept or the copy is damaged."""
    path = original_folder(location) / blob
    content = path.read_bytes() if path.is_file() else None
    return content if content is not None and blob_id(content) == blob else None


def _parse(data: dict[str, Any]) -> AppliedSeries:
    files = tuple(AppliedFile(**file) for file in data["files"])
    record = AppliedFile(**data["record"]) if data.get("record") else None
    folders = tuple(data.get("folders", ()))
    every = [*files, *([record] if record else [])]
    blobs = [blob for file in every for blob in (file.before, file.after, file.merged, file.released) if blob]
    paths = [*(file.path for file in every), *folders]
    if not all(map(_INSIDE.fullmatch, paths)) or not all(map(_BLOB.fullmatch, blobs)):
        raise ValueError("a path or a blob id")
    return AppliedSeries(**{**data, "files": files, "folders": folders, "record": record})


def _without_defaults(one: AppliedSeries) -> dict[str, Any]:
    """Leave out empty values, so that an earlier vimectl can read the record of a plain apply."""
    entry = asdict(one)
    for file in (*entry["files"], entry["record"] or {}):
        for key in ("mode", "merged", "released"):
            if file.get(key, "") is None:
                del file[key]
    return {key: value for key, value in entry.items() if key == "files" or value not in ((), None)}
