"""Record what was applied to a target, in its bookkeeping folder ``.vimectl/``.

    ledger.json        by package: the patches, in order, and what their diffs do not say
    objects/<blob>     contents by git blob id: the patches, the patched files as they were before, RECORD
    journal.json       a change in progress, and stage/ its prepared files (see transaction)
    lock               held during a change
    .gitignore         in a work tree: git ignores this folder

The state of a target follows from the contents of its files, never from this record. The record
distinguishes a former apply (other patches, or a merge) from an edit, and keeps the contents that diffs start
from and that a revert restores.
"""

from __future__ import annotations

import json
import re
import stat
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import FileId, blob_id
from vimectl.patches.patchfile.names import path_problem
from vimectl.patches.series import Patch, Series, parse_patch
from vimectl.patches.target_tree import FOLDER, open_tree

# Relative to the target.
STATE, OBJECTS = f"{FOLDER}/ledger.json", f"{FOLDER}/objects"
JOURNAL, STAGE, LOCK = f"{FOLDER}/journal.json", f"{FOLDER}/stage", f"{FOLDER}/lock"
# What is read to classify a target.
BOOKKEEPING = (STATE, OBJECTS, JOURNAL, STAGE, LOCK)
SCHEMA, _FORMER = "vimectl.ledger/2", "vimectl.ledger/1"
_BLOB = re.compile(r"[0-9a-f]{40}")


class Change(NamedTuple):
    """The blob ids of a file before and after (None: no such file)."""

    before: str | None
    after: str | None


class _AppliedFields(NamedTuple):
    location: Path
    name: str
    patches: tuple[tuple[str, str], ...]
    time: str
    vimectl: str
    modes: dict[str, int]
    merged: dict[str, Change]
    folders: tuple[str, ...]
    record_path: str
    record: Change | None


class AppliedSeries(_AppliedFields):
    """The patches that are applied to one package.

    ``name`` is that of the series, ``patches`` has the id and blob id of each patch, ``time`` is in UTC.
    ``modes`` has the ``st_mode`` before of files that a patch deletes or whose mode it changes. ``merged``
    has the files in which a user's edits were merged, without and with the patches. ``folders`` were made for
    created files, and are removed with them. ``record`` is the RECORD of the package, at ``record_path``.
    """

    @cached_property
    def series(self) -> Series:
        """Return the patches. Raises UsageError when a copy is damaged."""
        return Series(self.name, "", tuple(self._patch(*one) for one in self.patches)).checked()

    def _patch(self, patch_id: str, blob: str) -> Patch:
        text = read_object(self.location, blob)
        if text is None:
            raise UsageError(
                f"{self.location / OBJECTS / blob}: the copy of {patch_id} is missing or damaged",
                "put the patch there again, or reinstall the package and remove the bookkeeping folder",
            )
        return parse_patch(patch_id, text)

    def position(self, path: str, found: FileId) -> int | None:
        """Return how many of the applied patches of a file its content has; None: it is no content of
        them."""
        return self.series.position(path, found) if path in self.series.chains else None

    def objects(self, series: Series) -> set[str]:
        """Return the ids of the contents that must be kept; ``series`` has the same patches as
        ``patches``."""
        before = {chain[0] for chain in series.chains.values()}
        before |= {change.before for change in (*self.merged.values(), self.record) if change}
        return {blob for blob in before if blob} | {blob for _, blob in self.patches}


def read(location: Path) -> dict[str, AppliedSeries]:
    """Return what was applied to a target directory, by package; empty if nothing ever was.

    Raises UsageError when the file was not written by this tool.
    """
    try:
        with open_tree(location) as tree:
            data = json.loads(tree.read(STATE))
        if data["schema"] == _FORMER:  # the files say what is applied; the next apply writes a new record
            return {}
        if data["schema"] != SCHEMA:
            raise ValueError(data["schema"])
        return {str(name): _parse(location, entry) for name, entry in data["packages"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        reason = f": {e.strerror}" if isinstance(e, OSError) else ": not written by this tool"
        raise UsageError(f"{location / STATE}{reason}", "remove it to forget what was applied") from e


def dump(packages: dict[str, AppliedSeries]) -> bytes | None:
    """Return the text of ``ledger.json``, or None when there are no packages."""
    if not packages:
        return None
    names = ("name", "patches", "time", "vimectl", "modes", "merged", "folders", "record_path", "record")
    data = {
        package: {name: value for name in names if (value := getattr(packages[package], name))}
        for package in sorted(packages)
    }
    return (json.dumps({"schema": SCHEMA, "packages": data}, indent=2) + "\n").encode()


def read_object(location: Path, blob: str) -> bytes | None:
    """Return a kept content, or None when it was not kept or the copy is damaged."""
    try:
        with open_tree(location) as tree:
            content = tree.read(f"{OBJECTS}/{blob}")
    except OSError:
        return None
    return content if blob_id(content) == blob else None


def _parse(location: Path, data: dict[str, Any]) -> AppliedSeries:
    """Check one entry. It may come from an archive that another user packed: paths must not lead out."""
    modes = {path: _safe_mode(mode) for path, mode in data.get("modes", {}).items()}
    folders = tuple(data.get("folders", ()))
    merged = {path: Change(*change) for path, change in data.get("merged", {}).items()}
    record = Change(*data["record"]) if data.get("record") else None
    patches = tuple((str(patch_id), blob) for patch_id, blob in data.get("patches", ()))
    record_path = data.get("record_path", "")
    paths = [*modes, *merged, *folders, *([record_path] if record_path else [])]
    blobs = [blob for change in (*merged.values(), record) if change for blob in change if blob]
    blobs += [blob for _, blob in patches]
    words = [data[name] for name in ("name", "time", "vimectl")]
    if (
        any(map(path_problem, paths))
        or not all(map(_BLOB.fullmatch, blobs))
        or not all(isinstance(word, str) for word in words)
    ):
        raise ValueError("a path, a blob id or a name")
    name, time, vimectl = words
    return AppliedSeries(location, name, patches, time, vimectl, modes, merged, folders, record_path, record)


def _safe_mode(st_mode: int) -> int:
    """Return an ``st_mode`` without what gives its file privileges."""
    return stat.S_IFMT(st_mode) | (st_mode & 0o777)
