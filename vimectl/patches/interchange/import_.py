"""Import patches of another form as a series for a release."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.patches import series as series_files
from vimectl.patches.blobs import blob_id
from vimectl.patches.git_commands import FileChanges
from vimectl.patches.interchange import importers
from vimectl.patches.interchange.importers import ImportablePatch
from vimectl.patches.interchange.message import as_dep3
from vimectl.patches.lint.release_check import PatchedRelease, check_release
from vimectl.patches.patchfile.apply import GitFile, apply_patch
from vimectl.patches.series_writer import NewPatch, write_series
from vimectl.patches.sources import ReleaseFiles


@dataclass(frozen=True)
class ImportedPatch:
    """A patch of the new series: its origin, its files before and after, and the number of its hunks that
    were not at the stated line."""

    id: str
    where: str
    changes: FileChanges
    offsets: int

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch import --json` prints for the patch."""
        files = [
            {"path": path, "before": _id(before), "after": _id(after)}
            for path, (before, after) in self.changes.items()
        ]
        return {"id": self.id, "from": self.where, "files": files, "offsets": self.offsets}


def import_series(
    path: Path, package: str, version: str, files: ReleaseFiles, out: Path, module: str | None = None
) -> list[ImportedPatch]:
    """Write the patches in ``path`` as a series for a release into a new folder.

    ``module`` is the folder that identifies the package: by default that of its other series, otherwise its
    name. Each patch is applied to the release by git's rules, and git writes the new diff: with full blob
    ids, at the actual lines, a rename as a deletion and a creation.

    Raises:
        UsageError: there are no patches, one does not apply, ``out`` exists, or a series cannot express a
            change.
        MissingRequirement: git is not installed, or the folder cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out} exists already", "name another --out, or remove it")
    release = PatchedRelease(files)
    imported: list[ImportedPatch] = []
    patches: list[NewPatch] = []
    for number, one in enumerate(importers.read(path), 1):
        changes, offsets = _changes(one, release)
        release = release.with_patch(one.patch)
        patch_id = f"{number:04}-{one.slug}"
        imported.append(ImportedPatch(patch_id, one.where, changes, offsets))
        patches.append(NewPatch(patch_id, as_dep3(one.description).encode(), changes))
    comment = f"Patches for the released {package} {version}, in the order in which they apply."
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        folder = Path(scratch, "series")
        folder.mkdir()
        write_series(folder, comment, package, version, module or _module(package), patches)
        try:
            shutil.copytree(folder, out)
        except OSError as e:
            raise MissingRequirement(f"{out} cannot be written: {e}") from e
    return imported


def _module(package: str) -> str:
    versions = series_files.known().get(package)
    return series_files.load(package, versions[0]).module if versions else package.replace("-", "_")


def _changes(one: ImportablePatch, release: PatchedRelease) -> tuple[FileChanges, int]:
    """Return the changed files, and the number of hunks found at another line. Raises UsageError."""
    try:
        results = apply_patch(one.patch.diffs, release.file)
    except UsageError as e:
        raise UsageError(
            f"{one.where}: does not apply to {release.name}: {e.message}",
            "vimectl patch lint FILE --against ... shows how each hunk fits",
        ) from e
    changes = {path: (release.file(path), after) for path, after in sorted(results.items())}
    changes = {path: states for path, states in changes.items() if states[0] != states[1]}
    if not changes:
        raise UsageError(f"{one.where}: changes nothing in {release.name}", "leave it out")
    hunks, _ = check_release(one.patch, release)
    return changes, sum(hunk.result == "offset" for hunk in hunks)


def _id(file: GitFile | None) -> str | None:
    return blob_id(file.content) if file else None
